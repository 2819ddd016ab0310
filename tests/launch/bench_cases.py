"""`conclave bench` and dummy weights. Nothing here looks at how fast anything is."""
import json
import os
import shutil
import subprocess
import sys
import tempfile

from command import CONCLAVE, SOURCE, Case


def shape(name):
    return os.path.join(SOURCE, "tests", "fixtures", name)


class Bench(Case):
    quick = ["--load-format", "dummy", "-p", "20", "-n", "4", "-r", "2", "-t", "1"]

    def test_table(self):
        for ranks in "1", "3":
            out, _ = self.succeeds("bench", shape("qwen3moe-odd"), *self.quick, "--batch-sizes", "1,3",
                                   "--local-ranks", ranks)
            rows = out.splitlines()
            self.assertEqual(len(rows), 5, out)
            self.assertIn("| pp20 |", rows[2])
            self.assertIn("| tg4 |", rows[3])
            self.assertIn("| tg4 x3 |", rows[4])

    def test_json(self):
        out, _ = self.succeeds("bench", shape("mixtral"), *self.quick, "-o", "json")
        tests = json.loads(out)
        self.assertEqual([t["test"] for t in tests], ["pp20", "tg4"])
        for t in tests:
            self.assertEqual(len(t["samples_ts"]), 2)
            self.assertGreater(t["avg_ts"], 0)
            self.assertGreater(t["weight_bytes_per_second"], 0)

    def test_several_thread_counts(self):
        out, _ = self.succeeds("bench", shape("llama"), "-p", "8", "-n", "2", "-r", "1", "-t", "1,2",
                               "--local-ranks", "2", "--json")
        self.assertEqual([(t["n_threads"], t["test"]) for t in json.loads(out)],
                         [(1, "pp8"), (1, "tg2"), (2, "pp8"), (2, "tg2")])

    def test_context_before_generation(self):
        out, _ = self.succeeds("bench", shape("qwen3moe-odd"), "--load-format", "dummy", "-p", "0", "-n", "3", "-r", "1",
                               "-t", "1", "-d", "0,40", "--batch-sizes", "1,2", "--json")
        self.assertEqual([(t["test"], t["n_depth"]) for t in json.loads(out)],
                         [("tg3", 0), ("tg3 x2", 0), ("tg3 @ d40", 40), ("tg3 x2 @ d40", 40)])
        self.fails(2, ["--n-depth"], "bench", shape("llama"), "-d", "-1")

    def compare(self, *arguments):
        return subprocess.run([sys.executable, os.path.join(SOURCE, "launch", "bench-compare"), *arguments],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def test_two_builds(self):
        done = self.compare(CONCLAVE, os.path.dirname(CONCLAVE), "--rounds", "2", shape("qwen3moe-odd"), *self.quick)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("both are the same program", done.stderr)
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[2:]]
        self.assertEqual({row[3] for row in rows}, {"pp20", "tg4"})
        for test in "pp20", "tg4":
            self.assertEqual(sum(int(row[1]) for row in rows if row[3] == test), 2)
        for row in rows:
            self.assertIn(row[0], ("1", "S", "B", "C", "N", "?", "moved"))
            self.assertAlmostEqual(float(row[6]), float(row[5]) / float(row[4]), delta=0.5 * float(row[6]))

    def test_two_builds_refusals(self):
        for arguments, message in (("/nonexistent", CONCLAVE, "x"), "/nonexistent is no program"), \
                ((CONCLAVE, CONCLAVE), "no model"), \
                ((CONCLAVE, CONCLAVE, "--rounds", "0", "x"), "--rounds"), \
                ((CONCLAVE, CONCLAVE, "/nonexistent"), "/nonexistent"):
            done = self.compare(*arguments)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(message, done.stderr)
            self.assertNotIn("Traceback", done.stderr)

    def test_real_weights(self):
        out, _ = self.succeeds("bench", shape("llama"), "-p", "8", "-n", "0", "-r", "1")
        self.assertEqual(len(out.splitlines()), 3)

    def test_refusals(self):
        self.fails(2, ["nothing to measure"], "bench", shape("llama"), "-p", "0", "-n", "0")
        self.fails(2, [], "bench", shape("llama"), "--batch-sizes", "0")
        self.fails(66, [], "bench", "/nonexistent", "--load-format", "dummy")

    def test_other_commands_need_no_weights_either(self):
        with tempfile.TemporaryDirectory() as model:
            shutil.copy(os.path.join(shape("llama"), "config.json"), model)
            self.fails(66, [], "run", model, "--prompt-ids", "1,2", "-n", "1")
            self.succeeds("run", model, "--load-format", "dummy", "--prompt-ids", "1,2", "-n", "1")
            self.succeeds("inspect", model, "--load-format", "dummy")

    def test_shapes_can_be_planned(self):
        folder = os.path.join(SOURCE, "launch", "examples", "shapes")
        for name in sorted(os.listdir(folder)):
            out, _ = self.succeeds("plan", os.path.join(folder, name), "--load-format", "dummy", "--ranks", "2")
            self.assertIn("layout", out)
