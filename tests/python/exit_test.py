"""Programs that end without closing their engine, on one rank and on several."""
import os
import tempfile
import unittest

from support import MODEL, mpirun, python

BEGIN = f"""
import sys
import conclave
MODEL = {MODEL!r}
"""
RANKS = BEGIN + """
from mpi4py import MPI
engine = conclave.Engine(MODEL, MPI.COMM_WORLD, threads=1)
"""
GENERATE = """
if engine.rank == 0:
    print(len(engine.generate("ROMEO:", max_tokens=5, ignore_eos=True).tokens), flush=True)
"""


class Exit(unittest.TestCase):
    def run_program(self, program, ranks=0):
        with tempfile.TemporaryDirectory() as scratch:
            path = os.path.join(scratch, "program.py")
            with open(path, "w") as f:
                f.write(program)
            return mpirun(ranks, path) if ranks else python(path)

    def test_one_process(self):
        self.assertEqual(self.run_program(BEGIN + "engine = conclave.Engine(MODEL)" + GENERATE), (0, "5\n", ""))

    def test_an_open_stream(self):
        program = BEGIN + 'stream = conclave.Engine(MODEL).stream("ROMEO:")\nprint(next(stream).token >= 0)\n'
        self.assertEqual(self.run_program(program), (0, "True\n", ""))

    def test_a_child_process_leaves_it_alone(self):
        program = BEGIN + ("import os\nengine = conclave.Engine(MODEL)\nif os.fork() == 0:\n    del engine\n"
                           "    sys.exit(0)\nos.wait()\n") + GENERATE
        self.assertEqual(self.run_program(program), (0, "5\n", ""))

    def test_two_ranks(self):
        """Rank 1 neither follows nor closes."""
        self.assertEqual(self.run_program(RANKS + GENERATE, 2), (0, "5\n", ""))

    def test_two_ranks_one_fails(self):
        """Rank 0's exception ends the program, and nobody waits for it."""
        code, out, err = self.run_program(RANKS + GENERATE + "if engine.rank == 0:\n    raise KeyError('mine')", 2)
        self.assertNotEqual(code, 0)
        self.assertEqual(out, "5\n")
        self.assertIn("KeyError: 'mine'", err)
        self.assertNotIn("MPI_ABORT", err)

    def test_the_other_rank_fails(self):
        """Rank 1 does not follow after an exception, and rank 0 learns of it."""
        code, out, err = self.run_program(RANKS + "if engine.rank:\n    raise KeyError('mine')\n"
                                          "while True:\n    engine.generate('ROMEO:')\n", 2)
        self.assertNotEqual(code, 0)
        self.assertIn("KeyError: 'mine'", err)
        self.assertIn("CommError: a rank left", err)

    def test_finalized_first(self):
        code, out, err = self.run_program(RANKS + GENERATE + "if engine.rank:\n    engine.follow()\n"
                                          "else:\n    engine.close()\nMPI.Finalize()\nsys.stdout.write('done\\n')", 2)
        self.assertEqual((code, err, sorted(out.split())), (0, "", ["5", "done", "done"]))


if __name__ == "__main__":
    unittest.main()
