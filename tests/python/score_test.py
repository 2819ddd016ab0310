"""launch/examples/score-python at 1, 2 and 3 ranks, against the engine and the perplexity command."""
import json
import math
import os
import tempfile
import unittest

import conclave
from support import COMMAND, MODEL, SOURCE, mpirun, run

EXAMPLE = os.path.join(SOURCE, "launch", "examples", "score-python")
TEXTS = os.path.join(EXAMPLE, "texts.txt")


class Score(unittest.TestCase):
    def table(self, ranks, texts=TEXTS, *flags):
        code, out, err = mpirun(ranks, os.path.join(EXAMPLE, "score.py"), MODEL, texts, *flags)
        self.assertEqual((code, err), (0, ""))
        rows = [line.split("\t") for line in out.splitlines()]
        self.assertEqual(rows[0], ["tokens", "logprob", "perplexity", "text"])
        return rows[1:]

    def test_ranks(self):
        one = self.table(1, TEXTS, "--deterministic")
        self.assertEqual(self.table(2, TEXTS, "--deterministic"), one)
        self.assertEqual(self.table(3, TEXTS, "--deterministic"), one)
        for row, other in zip(one, self.table(2)):
            self.assertEqual((row[0], row[3]), (other[0], other[3]))
            self.assertLess(abs(float(row[1]) / float(other[1]) - 1), 0.02)
        with open(os.path.join(EXAMPLE, "README.md")) as f:
            shown = [line.split("\t") for line in f.read().splitlines() if line.count("\t") == 3]
        for row, other in zip(one, shown[1:]):  # other CPUs round otherwise
            self.assertEqual((row[0], row[3]), (other[0], other[3]))
            self.assertLess(abs(float(row[1]) / float(other[1]) - 1), 0.02)
        with open(TEXTS) as f:
            texts = f.read().splitlines()
        self.assertEqual([row[3] for row in one], texts)
        with conclave.Engine(MODEL, deterministic=True) as engine:
            for (tokens, logprob, perplexity, text) in one:
                ids = engine.tokenize(text)
                logits = engine.logits(ids).astype(float)
                wanted = sum(row[i] - row.max() - math.log(sum(map(math.exp, row - row.max())))
                             for row, i in zip(logits, ids[1:]))
                self.assertEqual(int(tokens), len(ids) - 1)
                self.assertAlmostEqual(float(logprob), wanted, places=5)
                self.assertAlmostEqual(float(perplexity), math.exp(-wanted / (len(ids) - 1)), places=4)

    def test_the_command_s_perplexity(self):
        """Two windows of 64 tokens: the command scores each one's last position too."""
        path = os.path.join(SOURCE, "tests", "fixtures", "shakespeare.txt")
        code, out, err = run(COMMAND, "perplexity", MODEL, path, "--window", "64", "--windows", "2", "--json",
                             "--deterministic")
        self.assertEqual(code, 0, err)
        with conclave.Engine(MODEL, deterministic=True) as engine, open(path) as f:
            ids = engine.tokenize(f.read(), add_special_tokens=False)
            scores = engine.score([ids[0:65], ids[64:129]])
        mean = sum(-score.logprob for score in scores) / 128
        self.assertAlmostEqual(mean, json.loads(out)["mean_nll"], places=9)

    def test_errors(self):
        for arguments, words in (([MODEL, "/no/such/texts"], "/no/such/texts"),
                                 (["/no/such/model", TEXTS], "/no/such/model")):
            code, out, err = mpirun(1, os.path.join(EXAMPLE, "score.py"), *arguments)
            self.assertNotEqual(code, 0)
            self.assertEqual(out, "")
            self.assertIn(words, err)
            self.assertEqual(err.count("score.py: "), 1)
            self.assertNotIn("Traceback", err)

    def test_no_lines(self):
        with tempfile.TemporaryDirectory() as scratch:
            path = os.path.join(scratch, "empty")
            open(path, "w").close()
            self.assertEqual(self.table(1, path), [])


if __name__ == "__main__":
    unittest.main()
