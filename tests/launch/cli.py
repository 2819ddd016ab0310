#!/usr/bin/env python3
"""cli.py CONCLAVE SOURCE_DIR PART: runs the conclave command as a user would, and checks standard
output, standard error and exit codes. PART is the name of one class below, in lower case."""
import hashlib
import json
import os
import re
import subprocess
import sys
import unittest

import checkpoint
from bench_cases import Bench
from command import CONCLAVE, SOURCE, Case, error_lines, run, shakespeare, text
from perplexity_cases import Perplexity
from plugins_cases import Plugins
from quantized_cases import Quantized

TENSOR = "model.layers.1.mlp.experts.3.up_proj.weight"


class Usage(Case):
    def test_help_and_version(self):
        commands = ["run", "verify", "perplexity", "inspect", "plan", "bench", "dequantize", "plugins", "conform",
                    "doctor"]
        for arguments in (["--help"], ["-h"], ["run", "--help"], *([command, "-h"] for command in commands)):
            out, err = self.succeeds(*arguments)
            self.assertIn("Usage: conclave", out)
            self.assertEqual(err, "")
            self.assertLessEqual(max(map(len, out.splitlines())), 100)
        self.assertRegex(self.succeeds("--version")[0], r"^conclave \d+\.\d+\.\d+\n$")

    def test_what_cannot_be(self):
        model = shakespeare()
        for arguments in (
            [],
            ["fly"],
            ["run"],
            ["run", model],
            ["run", model, "-p", "x", "--wings"],
            ["run", model, "-p", "x", "-n", "none"],
            ["run", model, "-p", "x", "--temperature", "-1"],
            ["run", model, "-p", "x", "--prompt-ids", "1"],
            ["run", model, "--prompt-ids", "1,,2"],
            ["run", model, "-p", "x", "--activations", "int3"],
            ["run", model, "-p", "x", "--expert-parallel", "2by4"],
            ["run", model, "-p", "x", "--repetition-penalty", "0"],
            ["run", model, "-p", "x", "--logit-bias", "7=1"],
            ["verify", model],
            ["perplexity", model],
            ["perplexity", model, text(), "--window", "0"],
            ["plan", model, "--ranks", "0"],
        ):
            self.fails(2, [], *arguments)

    def test_what_cannot_be_for_this_model(self):
        model = shakespeare()
        self.fails(2, [], "run", model, "-p", "x", "--expert-parallel", "2x2", "--local-ranks", "3")
        self.fails(2, [], "run", model, "-p", "x", "--tensor-parallel-size", "2", "--local-ranks", "3")
        self.fails(2, [], "run", model, "-p", "")
        self.fails(2, ["logit_bias", "1024"], "run", model, "-p", "x", "--logit-bias", "1024+1", "--local-ranks", "2")
        for ranks in "1", "3":
            self.fails(2, ["too long"], "run", model, "-p", "word " * 2000, "--local-ranks", ranks)
            self.fails(2, ["too long"], "run", model, "-p", "one two three", "-c", "2", "--local-ranks", ranks)
            self.fails(2, [], "run", model, "--prompt-ids", "1,1024", "--local-ranks", ranks)

    def test_missing_files(self):
        for command in (["run", "/no/model", "-p", "x"], ["inspect", "/no/model"], ["plan", "/no/model"]):
            self.fails(66, ["/no/model"], *command)
        self.fails(66, ["/no/prompt"], "run", shakespeare(), "-f", "/no/prompt")
        self.fails(66, ["/no/text"], "perplexity", shakespeare(), "/no/text", "--local-ranks", "2")
        self.fails(66, ["/no/model"], "perplexity", "/no/model", text())
        self.fails(66, [SOURCE], "perplexity", shakespeare(), SOURCE)
        self.fails(66, ["/no/reference"], "verify", shakespeare(), "--reference", "/no/reference")
        self.fails(66, ["/no/model"], "run", "/no/model", "-p", "x", "--local-ranks", "3")


class Run(Case):
    def test_text_is_all_there_is_on_stdout(self):
        texts = set()
        for ranks in "1", "2", "3":
            out, err = self.succeeds(
                "run", shakespeare(), "-p", "ROMEO:", "-n", "40", "--ignore-eos", "--deterministic",
                "--local-ranks", ranks,
            )  # fmt: skip
            self.assertTrue(out.endswith("\n"))
            self.assertFalse(out.startswith("ROMEO:"), out)
            self.assertRegex(err, rf"loaded \S+ MiB in \S+ s \(.*, {ranks} ranks?\)")
            self.assertRegex(err, r"prefill +\d+ tokens in .* tokens/s")
            self.assertRegex(err, r"decode +39 tokens in .* tokens/s")
            self.assertIn("100 %", err)
            texts.add(out)
        self.assertEqual(len(texts), 1, texts)
        self.assertGreater(len(texts.pop()), 40)

    def test_prompt_from_a_file_and_from_ids(self):
        path = os.path.join(self.scratch.name, "prompt")
        with open(path, "w") as f:
            f.write("ROMEO:\n")
        wanted = self.succeeds("run", shakespeare(), "-p", "ROMEO:", "-n", "8")[0]
        self.assertEqual(self.succeeds("run", shakespeare(), "-f", path, "-n", "8")[0], wanted)
        env = {"CONCLAVE_MODEL": shakespeare()}
        self.assertEqual(self.succeeds("run", "-p", "ROMEO:", "-n", "8", env=env)[0], wanted)

    def test_ids_without_a_tokenizer(self):
        model = self.copy()
        os.remove(model.file("tokenizer.json"))
        reference = checkpoint.read_tensors(model.file("expected.safetensors"))
        prompt, wanted = checkpoint.ids(reference["greedy_prompt"]), checkpoint.ids(reference["greedy_ids"])
        margins = checkpoint.floats(reference["greedy_margin"])
        safe = next((i for i, m in enumerate(margins) if m < 1e-2), len(margins))
        self.assertGreater(safe, 3)
        for ranks in "1", "2", "3":
            out, _ = self.succeeds(
                "run", str(model), "--prompt-ids", ",".join(map(str, prompt)), "-n", str(len(wanted)),
                "--ignore-eos", "--activations", "f32", "--local-ranks", ranks,
            )  # fmt: skip
            self.assertRegex(out, r"^\d+( \d+)*\n$")
            found = list(map(int, out.split()))
            self.assertEqual(len(found), len(wanted))
            self.assertEqual(found[:safe], wanted[:safe])
        self.fails(2, ["tokenizer.json", "--prompt-ids"], "run", str(model), "-p", "x")

    def test_limits(self):
        out, err = self.succeeds("run", shakespeare(), "--prompt-ids", "5,6,7", "-n", "50", "-c", "5")
        self.assertIn("at most 2 tokens", err)
        self.assertTrue(out.endswith("\n"))

    def test_sampling_depends_on_the_seed_alone(self):
        def sample(seed, ranks):
            return self.succeeds(
                "run", shakespeare(), "-p", "To be", "-n", "30", "--temperature", "1.2", "--seed", seed,
                "--deterministic", "--local-ranks", ranks,
            )[0]  # fmt: skip

        first = sample("7", "1")
        self.assertEqual(sample("7", "3"), first)
        self.assertNotEqual(sample("8", "1"), first)
        greedy = self.succeeds("run", shakespeare(), "-p", "To be", "-n", "30", "--deterministic")[0]
        one = ["--temperature", "1", "--top-k", "1", "--deterministic"]
        self.assertEqual(self.succeeds("run", shakespeare(), "-p", "To be", "-n", "30", *one)[0], greedy)

    def test_stop(self):
        flags = ["run", shakespeare(), "-p", "ROMEO:", "-n", "60", "--deterministic"]
        whole = self.succeeds(*flags)[0][:-1]
        self.assertGreater(len(whole), 80)
        for begin in range(20, 70, 7):
            stop = whole[begin : begin + 5]
            for ranks in "1", "2":
                out, err = self.succeeds(*flags, "--stop", "never said", "--stop", stop, "--local-ranks", ranks)
                self.assertEqual(out, whole[: whole.index(stop)] + "\n", stop)
        self.assertLess(int(re.search(r"decode +(\d+) tokens", err)[1]), 59)
        self.assertEqual(self.succeeds(*flags, "--stop", whole + "!")[0], whole + "\n")
        self.fails(2, ["--stop"], *flags, "--stop", "", "--local-ranks", "2")
        self.fails(2, ["--stop"], *flags, *["--stop", "a"] * 17)
        model = self.copy()
        os.remove(model.file("tokenizer.json"))
        self.fails(2, ["--stop", "tokenizer.json"], "run", str(model), "--prompt-ids", "5", "--stop", "a")

    def test_penalties(self):
        flags = ["run", shakespeare(), "-p", "To be", "-n", "40", "--deterministic"]
        plain = self.succeeds(*flags)[0]
        for option in (["--repetition-penalty", "1.5"], ["--presence-penalty", "2"], ["--frequency-penalty", "2"]):
            texts = {self.succeeds(*flags, *option, "--local-ranks", ranks)[0] for ranks in ("1", "3")}
            self.assertEqual(len(texts), 1, option)
            self.assertNotIn(plain, texts, option)
        self.assertEqual(self.succeeds(*flags, "--repetition-penalty", "1", "--logit-bias", "5+0")[0], plain)

    def test_the_end_token_is_not_printed(self):
        flags = ["run", shakespeare(), "-p", "To be", "-n", "6", "--logit-bias", "0+100"]  # 0: <|endoftext|>
        out, err = self.succeeds(*flags)
        self.assertEqual(out, "\n")
        self.assertRegex(err, r"decode +0 tokens")
        out, err = self.succeeds(*flags, "--ignore-eos")
        self.assertEqual(out, "\n")
        self.assertRegex(err, r"decode +5 tokens")
        ids = ["--prompt-ids", "5,6,7", "-n", "6"]
        model = self.copy()
        os.remove(model.file("tokenizer.json"))
        free = list(map(int, self.succeeds("run", str(model), *ids, "--ignore-eos")[0].split()))
        self.assertEqual(len(free), 6)
        with open(model.file("generation_config.json"), "w") as f:
            json.dump({"eos_token_id": [1023, free[3]]}, f)
        found = list(map(int, self.succeeds("run", str(model), *ids, "--local-ranks", "2")[0].split()))
        self.assertEqual(found, free[: free.index(free[3]) + 1])

    def test_stdout_that_cannot_be_written(self):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [CONCLAVE, "run", shakespeare(), "-p", "x", "--local-ranks", "2"],
                stdout=full, stderr=subprocess.PIPE, timeout=300,
            )  # fmt: skip
        self.assertEqual(done.returncode, 71)
        self.assertEqual(len(error_lines(done.stderr.decode())), 1)


class Verify(Case):
    KEYS = "pass max_rel rms_rel kl_mean kl_max top1 greedy_first_diff greedy_margin logits_sha256".split()

    def verify(self, *arguments, model=None, reference=None):
        model = model or shakespeare()
        reference = reference or os.path.join(shakespeare(), "expected.safetensors")
        code, out, err = run([CONCLAVE, "verify", model, "--reference", reference, "--json", *arguments])
        self.assertEqual(out.count("\n"), 1, f"{out}\n{err}")
        figures = json.loads(out)
        self.assertEqual(list(figures), self.KEYS)
        self.assertEqual(code, 0 if figures["pass"] else 1, err)
        return figures

    def reference(self, change):
        path = os.path.join(self.scratch.name, "reference.safetensors")
        tensors = checkpoint.read_tensors(os.path.join(shakespeare(), "expected.safetensors"))
        change(tensors)
        checkpoint.write_tensors(path, tensors)
        return path

    def test_passes(self):
        for ranks in "1", "2", "3":
            figures = self.verify("--activations", "f32", "--local-ranks", ranks)
            self.assertTrue(figures["pass"], figures)
            self.assertLess(figures["max_rel"], 1e-4)
            self.assertEqual(figures["top1"], 1)
            self.assertIsNone(figures["greedy_first_diff"])

    def test_batch_chunks_and_ranks_change_nothing_in_deterministic_mode(self):
        flags = ["--activations", "f32", "--deterministic"]
        hashes = {self.verify(*flags, "--local-ranks", r)["logits_sha256"] for r in ("1", "2", "3")}
        hashes.add(self.verify(*flags, "-b", "7")["logits_sha256"])
        hashes.add(self.verify(*flags, "--max-num-seqs", "1", "--threads", "1")["logits_sha256"])
        self.assertEqual(len(hashes), 1)
        self.assertNotIn(hashlib.sha256(b"").hexdigest(), hashes)

    def test_fails_beyond_the_tolerance(self):
        figures = self.verify("--activations", "f32", "--tolerance", "0")
        self.assertFalse(figures["pass"])
        self.assertGreater(figures["max_rel"], 0)

    def test_fails_for_other_weights(self):
        model = self.copy()

        def double(tensors):
            dtype, shape, data = tensors["model.norm.weight"]
            tensors["model.norm.weight"] = (dtype, shape, data[: len(data) // 2] * 2)

        figures = self.verify("--activations", "f32", model=str(model.tensors(double)))
        self.assertFalse(figures["pass"])
        self.assertGreater(figures["kl_mean"], 0)

    def test_fails_for_other_greedy_ids(self):
        def change(tensors):
            dtype, shape, data = tensors["greedy_ids"]
            tensors["greedy_ids"] = (dtype, shape, data[:8] + (999).to_bytes(8, "little") + data[16:])

        figures = self.verify("--activations", "f32", reference=self.reference(change))
        self.assertFalse(figures["pass"])
        self.assertEqual(figures["greedy_first_diff"], 1)
        self.assertGreater(figures["greedy_margin"], 1e-2)

    def test_text_for_people(self):
        out, _ = self.succeeds(
            "verify", shakespeare(), "--activations", "f32",
            "--reference", os.path.join(shakespeare(), "expected.safetensors"),
        )  # fmt: skip
        self.assertTrue(out.endswith("pass\n"))

    def test_references_that_do_not_fit(self):
        def without(name):
            return lambda tensors: tensors.pop(name)

        def reshaped(tensors):
            dtype, (b, t, v), data = tensors["logits"]
            tensors["logits"] = (dtype, [b, t * 2, v // 2], data)

        def other_vocabulary(tensors):
            dtype, (b, t, v), data = tensors["logits"]
            tensors["logits"] = (dtype, [b, t, v // 2], data[: len(data) // 2])

        def negative(tensors):
            dtype, shape, data = tensors["input_ids"]
            tensors["input_ids"] = (dtype, shape, b"\xff" * 8 + data[8:])

        def not_finite(tensors):
            dtype, shape, data = tensors["logits"]
            tensors["logits"] = (dtype, shape, b"\x00\x00\xc0\x7f" + data[4:])

        for change, name in (
            (without("input_ids"), "input_ids"),
            (without("logits"), "logits"),
            (without("greedy_ids"), "greedy_ids"),
            (reshaped, "logits"),
            (other_vocabulary, "logits"),
            (negative, "input_ids"),
            (not_finite, "logits"),
        ):
            path = self.reference(change)
            self.fails(65, [name, path], "verify", shakespeare(), "--reference", path, "--local-ranks", "2")


class Inspect(Case):
    def test_inspect(self):
        out, err = self.succeeds("inspect", shakespeare())
        for word in ("Qwen3MoeForCausalLM", "bf16", "experts", "model.safetensors"):
            self.assertIn(word, out)
        summary = json.loads(self.succeeds("inspect", shakespeare(), "--json", "--activations", "f32")[0])
        self.assertTrue(summary["supported"])
        self.assertEqual((summary["experts"], summary["experts_per_token"]), (8, 2))
        self.assertEqual(summary["vocab_size"], 1024)
        tensors = checkpoint.read_tensors(os.path.join(shakespeare(), "model.safetensors"))
        held = sum(len(data) for _, _, data in tensors.values())
        self.assertEqual(summary["bytes"], held)
        self.assertEqual(sum(p["bytes"] for p in summary["parts"]), held)
        self.assertEqual(sum(e["tensors"] for e in summary["encodings"]), len(tensors))

    def test_inspect_says_what_run_would_refuse(self):
        model = self.copy().config(architectures=["Evil\x1b[31mForCausalLM"], model_type="evil\n")
        out, _ = self.succeeds("inspect", str(model))
        self.assertIn("supported      no", out)
        self.assertNotIn("\x1b", out)
        self.fails(78, [], "run", str(model), "-p", "x")
        self.fails(78, [], "plan", str(model), "--ranks", "2")

    def test_plan(self):
        for ranks in 1, 2, 3, 5, 8, 11:
            plan = json.loads(self.succeeds("plan", shakespeare(), "--ranks", str(ranks), "--json")[0])
            self.assertEqual([r["rank"] for r in plan["ranks"]], list(range(ranks)))
            self.assertTrue(plan["kernels"])
            read = sum(r["read_bytes"] for r in plan["ranks"])
            self.assertGreater(read, 14_000_000)
        out, _ = self.succeeds("plan", shakespeare(), "--ranks", "3", "--kernels", "--expert-parallel", "ep")
        whole, _ = self.succeeds("plan", shakespeare(), "--ranks", "3", "--expert-parallel", "ep")
        for text in out, whole:
            self.assertIn("served by panel_bf16", text)
            self.assertIn("not by panel_f32", text)
        self.assertIn("layout", whole)
        self.assertNotIn("layout", out)
        self.fails(2, [], "plan", shakespeare(), "--ranks", "3", "--expert-parallel", "2x2")
        plan = json.loads(self.succeeds("plan", shakespeare(), "--ranks", "2", "--json", "--deterministic")[0])
        self.assertEqual((plan["gathers_per_layer"], plan["reductions_per_layer"]), (4, 0))


class Files(Case):
    """Broken checkpoints: one clear error, the right exit code, no output."""

    def refused(self, codes, names, model):
        for ranks in "1", "3":
            self.fails(codes, names, "run", str(model), "-p", "x", "-n", "2", "--local-ranks", ranks)

    def test_tensors(self):
        def missing(tensors):
            del tensors[TENSOR]

        def extra(tensors):
            tensors["model.layers.1.mlp.surprise.weight"] = ("BF16", [2], b"\0" * 4)

        def misshaped(tensors):
            dtype, (n, k), data = tensors[TENSOR]
            tensors[TENSOR] = (dtype, [n // 2, k * 2], data)

        def mistyped(tensors):
            _, shape, data = tensors[TENSOR]
            tensors[TENSOR] = ("I16", shape, data)

        self.refused(65, [TENSOR], self.copy("missing").tensors(missing))
        self.refused(65, ["model.layers.1.mlp.surprise.weight"], self.copy("extra").tensors(extra))
        self.refused(65, [TENSOR], self.copy("shape").tensors(misshaped))
        self.refused((65, 78), [TENSOR], self.copy("type").tensors(mistyped))

    def test_truncated(self):
        model = self.copy()
        os.truncate(model.file(), os.path.getsize(model.file()) - 1000)
        self.refused(65, ["model.safetensors"], model)
        os.truncate(model.file(), 5)
        self.refused(65, ["model.safetensors"], model)

    def test_several_files(self):
        whole = self.succeeds("run", shakespeare(), "-p", "x", "-n", "9", "--deterministic")[0]
        model = self.copy()
        parts = model.split()
        self.assertEqual(self.succeeds("run", str(model), "-p", "x", "-n", "9", "--deterministic")[0], whole)
        os.remove(model.file(parts[1]))
        self.refused(66, [parts[1]], model)

    def test_no_weights(self):
        model = self.copy()
        os.remove(model.file())
        self.refused(66, [str(model)], model)

    def test_config(self):
        for key, value in (
            ("hidden_size", None),
            ("hidden_size", -256),
            ("num_experts", 2**62),
            ("num_hidden_layers", 1.5),
            ("num_experts_per_tok", 9),
            ("vocab_size", "many"),
        ):
            model = self.copy(f"{key}-{value}").config(**{key: value})
            self.refused((65, 78), ["config.json"], model)
        model = self.copy("architecture").config(architectures=["UnheardOfForCausalLM"], model_type="unheard_of")
        self.refused(78, ["UnheardOfForCausalLM"], model)
        model = self.copy("broken")
        with open(model.file("config.json"), "w") as f:
            f.write("{")
        self.refused(65, ["config.json"], model)
        os.remove(model.file("config.json"))
        self.refused(66, ["config.json"], model)


class Mpi(Case):
    def mpirun(self, *groups):
        """Each group is (ranks, arguments)."""
        command = ["mpirun"]
        for i, (ranks, arguments) in enumerate(groups):
            command += ([":"] if i else []) + ["-n", str(ranks), CONCLAVE, *arguments]
        return run(command)

    def test_text(self):
        flags = ["run", shakespeare(), "-p", "ROMEO:", "-n", "20", "--deterministic"]
        wanted = self.succeeds(*flags)[0]
        for ranks in 1, 2, 3:
            code, out, err = self.mpirun((ranks, flags))
            self.assertEqual((code, out), (0, wanted), err)
            self.assertRegex(err, rf"loaded .*, {ranks} ranks?\)")

    def test_verify(self):
        reference = os.path.join(shakespeare(), "expected.safetensors")
        flags = ["verify", shakespeare(), "--reference", reference, "--json", "--activations", "f32"]
        code, out, err = self.mpirun((3, flags))
        self.assertEqual(code, 0, err)
        self.assertTrue(json.loads(out)["pass"])
        code, out, err = self.mpirun((3, [*flags, "--tolerance", "0"]))
        self.assertEqual(code, 1, err)
        self.assertFalse(json.loads(out)["pass"])

    def test_perplexity(self):
        flags = ["perplexity", shakespeare(), text(), "--json", "--activations", "f32"]
        code, out, err = self.mpirun((2, flags))
        self.assertEqual(code, 0, err)
        self.assertAlmostEqual(json.loads(out)["perplexity"], 23.8354031556193, delta=5e-5)
        self.mpi_fails(2, ["4617 tokens"], (2, [*flags, "--windows", "99"]))

    def test_text_of_rank_0_only(self):
        for arguments in (["--help"], ["version"], ["inspect", shakespeare()], ["plan", shakespeare(), "--ranks", "5"]):
            alone = self.succeeds(*arguments)[0]
            code, out, err = self.mpirun((3, arguments))
            self.assertEqual((code, out), (0, alone), err)

    def mpi_fails(self, codes, names, *groups):
        return self.check_failure(self.mpirun(*groups), codes, names, groups)

    def test_one_error_line_whoever_fails(self):
        good = ["run", shakespeare(), "-p", "x"]
        self.mpi_fails(2, ["--wings"], (3, [*good, "--wings"]))
        self.mpi_fails(2, ["--wings", "rank 2"], (2, good), (1, [*good, "--wings"]))
        self.mpi_fails(2, ["--local-ranks"], (2, [*good, "--local-ranks", "2"]))
        self.mpi_fails(2, ["too long"], (3, ["run", shakespeare(), "-p", "word " * 2000]))
        self.mpi_fails(2, [], (3, ["run", shakespeare(), "--prompt-ids", "1024"]))
        self.mpi_fails(66, ["/no/model"], (3, ["run", "/no/model", "-p", "x"]))
        self.mpi_fails(66, ["/no/model"], (3, ["inspect", "/no/model"]))
        self.mpi_fails(66, ["/no/model", "rank 1"], (1, good), (2, ["run", "/no/model", "-p", "x"]))

    def test_one_rank_with_other_files(self):
        def change(tensors):
            dtype, (n, k), data = tensors[TENSOR]
            tensors[TENSOR] = (dtype, [n // 2, k * 2], data)

        good = ["run", shakespeare(), "-p", "x"]
        other = self.copy("shape").tensors(change)
        self.mpi_fails(65, ["rank"], (2, good), (1, ["run", str(other), "-p", "x"]))
        other = self.copy("layers").config(num_hidden_layers=3)
        self.mpi_fails(65, [], (2, good), (1, ["run", str(other), "-p", "x"]))


class Layouts(Case):
    """verify passes, and deterministic logits are the same bits, however the model is cut."""

    GRIDS = {4: ["2x2"], 8: ["2x4", "4x2"]}

    def command(self, ranks):
        return [CONCLAVE], ["--local-ranks", str(ranks)]

    def check(self, model):
        if not os.path.isdir(model):
            self.skipTest(f"{model} is not there")
        hashes = {}
        for ranks in 1, 2, 3, 4, 5, 8:
            for layout in ["tp", "ep", *self.GRIDS.get(ranks, [])]:
                for mode in [], ["--deterministic"]:
                    before, after = self.command(ranks)
                    code, out, err = run(
                        [*before, "verify", model, "--reference", os.path.join(model, "expected.safetensors"),
                         "--activations", "f32", "--json", "--expert-parallel", layout, *mode, *after]
                    )  # fmt: skip
                    what = f"{ranks} ranks, {layout}, {mode}\n{out}\n{err}"
                    self.assertEqual(code, 0, what)
                    figures = json.loads(out)
                    self.assertTrue(figures["pass"], what)
                    if mode:
                        hashes.setdefault(figures["logits_sha256"], what)
        self.assertEqual(len(hashes), 1, "\n".join(hashes.values()))

    def test_shakespeare(self):
        self.check(shakespeare())

    def test_odd_sizes(self):
        self.check(os.path.join(SOURCE, "..", "shared", "zoo", "models", "qwen3moe-odd"))

    def test_fused_tensors(self):
        self.check(os.path.join(SOURCE, "..", "shared", "zoo", "models", "qwen3moe-fused"))


class MpiLayouts(Layouts):
    def command(self, ranks):
        return ["mpirun", "-n", str(ranks), CONCLAVE], []


PARTS = {c.__name__.lower(): c for c in (
    Usage, Run, Verify, Perplexity, Bench, Quantized, Plugins, Inspect, Files, Mpi, Layouts, MpiLayouts)}


def main():
    part = sys.argv[3]
    for name in list(os.environ):
        if name.startswith("CONCLAVE_"):
            del os.environ[name]
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(PARTS[part])
    sys.exit(not unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful())


if __name__ == "__main__":
    main()
