"""`conclave bench` and dummy weights. Nothing here looks at how fast anything is."""
import json
import os
import shutil
import tempfile

from command import SOURCE, Case


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
