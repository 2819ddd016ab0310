#!/usr/bin/env python3
"""doctor.py CONCLAVE PART: what `conclave doctor` prints, as text and as JSON. PART is the name of
one class below, in lower case."""
import json
import os
import subprocess
import sys
import unittest

CONCLAVE = ""


def doctor(*arguments, before=(), env=None):
    """(stdout, stderr) of a doctor that succeeds."""
    command = [*before, CONCLAVE, "doctor", *arguments]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, env={**os.environ, **(env or {})}
    )
    if done.returncode != 0:
        raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout, done.stderr


class Doctor(unittest.TestCase):
    def check(self, report, ranks, backend):
        self.assertEqual(report["backend"], backend)
        self.assertEqual([r["rank"] for r in report["ranks"]], list(range(ranks)))
        for rank in report["ranks"]:
            self.assertTrue(rank["host"])
            self.assertGreater(len(rank["cpus"]), 0)
            self.assertGreaterEqual(rank["host_cpus"], len(rank["cpus"]))
            self.assertGreater(len(rank["numa_nodes"]), 0)
            self.assertGreater(rank["threads"], 0)
            self.assertIn("pages", rank["pages"])
            self.assertGreater(rank["memory_bytes"], rank["memory_free_bytes"])
            self.assertGreater(rank["read_alone_bytes_per_second"], 0)
            self.assertGreater(rank["read_bytes_per_second"], 0)
        self.assertGreater(report["read_bytes_per_second"], 0)
        for matrix in report["latency_us"], report["bandwidth_bytes_per_second"]:
            self.assertEqual(len(matrix), ranks)
            for a in range(ranks):
                self.assertEqual(len(matrix[a]), ranks)
                self.assertIsNone(matrix[a][a])
                for b in range(ranks):
                    if a != b:
                        self.assertGreater(matrix[a][b], 0)
                        self.assertEqual(matrix[a][b], matrix[b][a])
        for advice in report["advice"]:
            self.assertEqual(list(advice), ["topic", "reason", "action"])
            self.assertTrue(all(advice.values()))

    def both(self, ranks, backend, *arguments, **options):
        """Checks JSON and text; the report."""
        out, err = doctor("--json", *arguments, **options)
        self.assertEqual(len(out.splitlines()), 1)
        self.assertIn("reading memory", err)
        report = json.loads(out)
        self.check(report, ranks, backend)
        text, _ = doctor(*arguments, **options)
        self.assertIn(f"{ranks} rank", text.splitlines()[0])
        self.assertIn("what to change", text)
        rows = [line.split() for line in text.splitlines()]
        for rank in range(ranks):
            lines = [row for row in rows if row and row[0] == str(rank)]
            self.assertEqual(len(lines), 1 if ranks == 1 else 3, text)
        return report

    def topics(self, report):
        return [a["topic"] for a in report["advice"]]


class Alone(Doctor):
    def test_one_rank(self):
        report = self.both(1, "self")
        self.assertEqual(len({r["pid"] for r in report["ranks"]}), 1)

    def test_instruction_set_switched_off(self):
        out, _ = doctor("--json", env={"CONCLAVE_ISA": "generic"})
        report = json.loads(out)
        self.assertEqual(report["ranks"][0]["isa"], "generic")
        self.assertEqual("instruction sets" in self.topics(report), "avx" in open("/proc/cpuinfo").read())

    def test_too_many_threads(self):
        cpus = len(os.sched_getaffinity(0))
        report = json.loads(doctor("--json", "--threads", str(cpus + 1))[0])
        self.assertEqual(report["ranks"][0]["threads"], cpus + 1)
        self.assertIn("too many threads", self.topics(report))

    def test_usage(self):
        for arguments in (["--model", "x"], ["x"], ["--local-ranks", "0"]):
            done = subprocess.run([CONCLAVE, "doctor", *arguments], capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stdout), (2, ""), done.stderr)


class Local(Doctor):
    def test_three_ranks(self):
        report = self.both(3, "local", "--local-ranks", "3")
        self.assertEqual(len({r["pid"] for r in report["ranks"]}), 1)
        self.assertTrue({"launcher", "too many ranks"} & set(self.topics(report)))


class Mpi(Doctor):
    def mpirun(self, ranks, *arguments):
        return ["mpirun", "-n", str(ranks), *arguments]

    def test_two_and_three_ranks(self):
        for ranks in 2, 3:
            report = self.both(ranks, "mpi", before=self.mpirun(ranks))
            self.assertEqual(len({r["pid"] for r in report["ranks"]}), ranks)
            self.assertTrue(all("MPI_THREAD_" in r["mpi"] for r in report["ranks"]))

    def test_bound(self):
        cpus = len(os.sched_getaffinity(0))
        if cpus < 2:
            self.skipTest("one CPU: nothing to be bound away from")
        report = json.loads(doctor("--json", before=self.mpirun(1, "--bind-to", "core"))[0])
        self.assertTrue(report["ranks"][0]["bound"])
        self.assertEqual(self.topics(report).count("binding"), 1)

    def test_pretended_hosts(self):
        report = self.both(3, "mpi", before=self.mpirun(3), env={"CONCLAVE_PRETEND_HOSTS": "2"})
        self.assertEqual(len({r["host"] for r in report["ranks"]}), 2)


if __name__ == "__main__":
    CONCLAVE = sys.argv[1]
    unittest.main(argv=[sys.argv[0], sys.argv[2].capitalize()], verbosity=2)
