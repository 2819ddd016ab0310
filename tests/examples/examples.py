#!/usr/bin/env python3
"""examples.py CONCLAVE SOURCE_DIR BUILD_DIR PART: plugins that add a format, a reader and a kernel,
through the command. PART is the name of one class below, in lower case."""
import hashlib
import json
import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(sys.argv[2], "tests", "launch"))
import checkpoint
from command import CONCLAVE, SOURCE, Case, run, shakespeare, text

BUILD, PART = sys.argv[3:5]
EXAMPLE = os.path.join(SOURCE, "launch", "examples", "codebook-plugin")
PLUGINS = {name: os.path.join(BUILD, *folder) for name, folder in {
    "codebook": ("examples", "plugins"), "tbox": ("tests", "plugins", "tbox"),
    "kernel": ("tests", "plugins", "plain_kernel")}.items()}


def fixture(name):
    return os.path.join(SOURCE, "tests", "fixtures", name)


def digests(folder):
    def digest(name):
        with open(os.path.join(folder, name), "rb") as f:
            return hashlib.sha256(f.read()).hexdigest()
    return {name: digest(name) for name in sorted(os.listdir(folder))}


def use(*plugins):
    os.environ["CONCLAVE_PLUGIN_PATH"] = ":".join(PLUGINS[p] for p in plugins)


def write(*arguments):
    return run([sys.executable, os.path.join(EXAMPLE, "write_checkpoint.py"), *arguments])


class Codebook(Case):
    @classmethod
    def setUpClass(cls):
        use("codebook")
        cls.kept = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.kept.cleanup)
        cls.model = os.path.join(cls.kept.name, "model")
        cls.decoded = os.path.join(cls.kept.name, "decoded.safetensors")
        code, out, err = write(shakespeare(), cls.model, "--decoded", cls.decoded)
        assert (code, out) == (0, "") and "quantizing 100 %" in err, err

    def test_files(self):
        self.assertEqual(sorted(os.listdir(self.model)), [
            "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors",
            "tokenizer.json", "tokenizer_config.json"])
        tensors = checkpoint.read_tensors(os.path.join(self.model, "model.safetensors"))
        plain = checkpoint.read_tensors(os.path.join(shakespeare(), "model.safetensors"))
        stem = "model.layers.1.mlp.experts.3.up_proj"
        self.assertEqual(tensors[stem + ".codes"][:2], ("U8", [256, 128]))
        self.assertEqual(tensors[stem + ".scales"][:2], ("F16", [256, 8]))
        self.assertEqual(len([n for n in tensors if n.endswith(".codes")]), 4 * (4 + 3 * 8))
        for name in ("lm_head.weight", "model.embed_tokens.weight", "model.layers.0.mlp.gate.weight",
                     "model.layers.2.self_attn.k_norm.weight"):
            self.assertEqual(tensors[name], plain[name])

    def test_the_example_is_short(self):
        with open(os.path.join(EXAMPLE, "codebook.cpp")) as f:
            self.assertLess(len(f.readlines()), 150)

    def test_inspect(self):
        figures = json.loads(self.succeeds("inspect", self.model, "--json")[0])
        self.assertEqual(figures["quantization"], "codebook16")
        plain = json.loads(self.succeeds("inspect", shakespeare(), "--json")[0])
        self.assertEqual(figures["parameters"], plain["parameters"])
        self.assertIn("codebook16 g32", [m["encoding"] for m in figures["matrices"]])

    def test_weights_are_the_script_s(self):
        wanted = checkpoint.read_tensors(self.decoded)
        self.assertEqual(len(wanted), 112)
        first = None
        for ranks in "1", "3":
            out = os.path.join(self.scratch.name, "plain" + ranks)
            self.succeeds("dequantize", self.model, "--out", out, "--local-ranks", ranks)
            found = checkpoint.read_tensors(os.path.join(out, "model.safetensors"))
            for name, tensor in wanted.items():
                self.assertEqual(found[name], tensor, name)
            first = first or digests(out)
            self.assertEqual(digests(out), first)

    def test_text(self):
        flags = ["run", self.model, "-p", "ROMEO:", "-n", "24", "--deterministic", "--ignore-eos"]
        texts = {self.succeeds(*flags, "--local-ranks", ranks)[0] for ranks in ("1", "3")}
        code, out, err = run(["mpirun", "-n", "2", CONCLAVE, *flags])
        self.assertEqual(code, 0, err)
        texts.add(out)
        self.assertEqual(len(texts), 1, texts)
        self.assertGreater(len(texts.pop().strip()), 20)

    def test_perplexity_is_near_that_of_the_model(self):
        with open(os.path.join(shakespeare(), "expected.json")) as f:
            plain = json.load(f)["perplexity"]
        found = set()
        for ranks in "1", "3":
            out, _ = self.succeeds("perplexity", self.model, text(), "--json", "--activations", "f32",
                                   "--deterministic", "--local-ranks", ranks)
            found.add(json.loads(out)["perplexity"])
        self.assertEqual(len(found), 1)
        self.assertLess(abs(found.pop() / plain - 1), 0.02)

    def test_conforms(self):
        plugin = os.path.join(PLUGINS["codebook"], "codebook.so")
        self.succeeds("conform", "--plugin", plugin)
        self.succeeds("conform", "--plugin", plugin, "--checkpoint", self.model)

    def test_without_the_plugin_it_is_refused_by_name(self):
        self.fails(78, ["codebook16"], "plan", self.model, env={"CONCLAVE_PLUGIN_PATH": ""})


class Refusals(Case):
    """What the script refuses, and checkpoints that are not what codebook16 stores. The small model
    has sizes that are no multiples of anything, so that groups and bytes are cut."""

    @classmethod
    def setUpClass(cls):
        use("codebook")
        cls.kept = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.kept.cleanup)
        cls.small_model = os.path.join(cls.kept.name, "small")
        code, _, err = write(fixture("qwen3moe-odd"), cls.small_model)
        assert code == 0, err

    def small(self):
        return str(checkpoint.Copy(self.small_model, self.scratch.name, f"{len(os.listdir(self.scratch.name))}"))

    def test_script(self):
        full = os.path.join(self.scratch.name, "full")
        os.makedirs(full)
        with open(os.path.join(full, "mine"), "w") as f:
            f.write("x")
        code, out, err = write(fixture("qwen3moe-odd"), full)
        self.assertEqual((code, out), (2, ""), err)
        self.assertIn("not empty", err)
        self.assertEqual(os.listdir(full), ["mine"])
        small = self.small()
        for arguments in ([small, full + "2"], ["/no/model", full + "2"],
                          [fixture("qwen3moe-odd"), full + "2", "--group-size", "0"]):
            self.assertNotEqual(write(*arguments)[0], 0)
            self.assertFalse(os.path.exists(full + "2"))
        self.assertIn("usage:", write("--help")[1])

    def test_the_same_bytes_again(self):
        again = os.path.join(self.scratch.name, "again")
        self.assertEqual(write(fixture("qwen3moe-odd"), again)[0], 0)
        self.assertEqual(digests(again), digests(self.small_model))

    def test_odd_groups(self):
        for group in "7", "64", "1000":
            decoded = os.path.join(self.scratch.name, group)
            model = os.path.join(self.scratch.name, "model-" + group)
            code, _, err = write(fixture("qwen3moe-odd"), model, "--group-size", group, "--decoded", decoded)
            self.assertEqual(code, 0, err)
            wanted = checkpoint.read_tensors(decoded)
            for ranks in "1", "2", "5":
                out = os.path.join(self.scratch.name, f"plain-{group}-{ranks}")
                self.succeeds("dequantize", model, "--out", out, "--local-ranks", ranks)
                found = checkpoint.read_tensors(os.path.join(out, "model.safetensors"))
                for name, tensor in wanted.items():
                    self.assertEqual(found[name], tensor, f"{name} {group} {ranks}")

    def test_hostile_configs(self):
        def levels(change):
            def apply(config):
                change(config["levels"])
            return apply

        for change, word in (
            (lambda c: c.pop("group_size"), "group_size"), (lambda c: c.update(group_size=0), "group_size"),
            (lambda c: c.update(group_size=1 << 60), "group_size"), (lambda c: c.pop("levels"), "levels"),
            (lambda c: c.update(levels={"0": 1}), "levels"), (levels(lambda v: v.pop()), "levels"),
            (levels(lambda v: v.append(1)), "levels"), (levels(lambda v: v.__setitem__(3, "x")), "levels"),
            (levels(lambda v: v.__setitem__(3, True)), "levels"), (levels(lambda v: v.__setitem__(3, 1e300)), ""),
            (lambda c: c.update(group_size=8), "scales"),
        ):
            model = self.small()
            path = os.path.join(model, "config.json")
            with open(path) as f:
                config = json.load(f)
            change(config["quantization_config"])
            with open(path, "w") as f:
                json.dump(config, f)
            self.fails(65, [word], "run", model, "--prompt-ids", "1", "--local-ranks", "2")

    def test_hostile_tensors(self):
        stem = "model.layers.1.mlp.experts.3.up_proj."

        def cut(name):
            def change(tensors):
                dtype, (n, k), data = tensors[stem + name]
                tensors[stem + name] = (dtype, [n - 1, k], data[:len(data) // n * (n - 1)])
            return change

        def retyped(tensors):
            _, shape, data = tensors[stem + "codes"]
            tensors[stem + "codes"] = ("I8", shape, data)

        def infinite(tensors):
            dtype, shape, data = tensors[stem + "scales"]
            tensors[stem + "scales"] = (dtype, shape, data[:-2] + b"\x00\x7c")

        for change, codes, name in ((cut("codes"), 65, stem + "codes"), (cut("scales"), 65, stem + "scales"),
                                    (retyped, 78, stem + "codes"), (infinite, 65, stem + "scales"),
                                    (lambda t: t.pop(stem + "scales"), 65, stem + "scales")):
            path = os.path.join(self.small(), "model.safetensors")
            tensors = checkpoint.read_tensors(path)
            change(tensors)
            checkpoint.write_tensors(path, tensors)
            self.fails(codes, [name], "run", os.path.dirname(path), "--prompt-ids", "1", "--local-ranks", "2")


class Reader(Case):
    """A fixture kept in text boxes, see reader/tbox.cpp, is the model it was."""

    def setUp(self):
        super().setUp()
        use("tbox")

    def box(self, name="box"):
        copy = checkpoint.Copy(fixture("qwen3moe-odd"), self.scratch.name, name)
        tensors = checkpoint.read_tensors(copy.file())
        os.remove(copy.file())
        lines = ["TBOX 1", "blob even.bin", "blob odd.bin"]
        blobs = [b"", b"in front of all"]
        for i, (tensor, (dtype, shape, data)) in enumerate(tensors.items()):
            extents = "x".join(map(str, shape)) or "-"
            lines.append(f"tensor {tensor} {dtype} {extents} {i % 2} {len(blobs[i % 2])}")
            blobs[i % 2] += data
        for blob, data in zip(("even.bin", "odd.bin"), blobs):
            with open(copy.file(blob), "wb") as f:
                f.write(data)
        with open(copy.file("model.tbox"), "w") as f:
            f.write("\n".join(lines) + "\n")
        return copy

    def test_same_model(self):
        box = self.box()
        reference = os.path.join(fixture("qwen3moe-odd"), "expected.safetensors")
        flags = ["--prompt-ids", "5,6,7", "-n", "16", "--ignore-eos", "--deterministic", "--activations", "f32"]
        wanted = self.succeeds("run", fixture("qwen3moe-odd"), *flags)[0]
        self.assertEqual(len(wanted.split()), 16)
        for ranks in "1", "3":
            for form in "auto", "tbox":
                more = ["--load-format", form, "--local-ranks", ranks]
                self.assertEqual(self.succeeds("run", str(box), *flags, *more)[0], wanted)
            out, _ = self.succeeds("verify", str(box), "--reference", reference, "--activations", "f32", *more)
            self.assertTrue(out.endswith("pass\n"), out)
        out, _ = self.succeeds("inspect", str(box), "--json")
        self.assertEqual([f["name"] for f in json.loads(out)["files"]], ["even.bin", "odd.bin"])

    def test_others_are_read_as_before(self):
        plain = fixture("qwen3moe-odd")
        self.succeeds("plan", plain)
        self.succeeds("plan", plain, "--load-format", "safetensors")
        self.fails(66, ["model.tbox"], "plan", plain, "--load-format", "tbox")
        self.fails(2, ["parcels", "tbox"], "plan", plain, "--load-format", "parcels")
        self.fails(66, [], "plan", str(self.box()), env={"CONCLAVE_PLUGIN_PATH": ""})

    def test_hostile_headers(self):
        def line(number, change):
            return lambda lines: lines[:number] + [change(lines[number])] + lines[number + 1:]

        def word(number, at, to):
            def change(text):
                words = text.split()
                words[at] = to
                return " ".join(words)
            return line(number, change)

        for i, change in enumerate((
            lambda lines: [], lambda lines: ["TBOX 2"] + lines[1:], lambda lines: lines[:7] + ["nonsense"],
            lambda lines: lines + [lines[-1]], word(1, 1, "../even.bin"), word(9, 2, "Q4"), word(9, 3, "-5"),
            word(9, 3, "99999999999x99999999999"), word(9, 3, "1x"), word(9, 4, "2"), word(9, 4, "-1"),
            word(9, 5, str(1 << 63)), word(9, 5, "1e3"), line(9, lambda text: text + " more"),
        )):
            box = self.box(f"box-{i}")
            with open(box.file("model.tbox")) as f:
                lines = f.read().splitlines()
            with open(box.file("model.tbox"), "w") as f:
                f.write("\n".join(change(lines)))
            for ranks in "1", "2":
                self.fails(65, ["model.tbox"], "run", str(box), "--prompt-ids", "1", "--local-ranks", ranks)
        box = self.box("short")
        os.truncate(box.file("odd.bin"), os.path.getsize(box.file("odd.bin")) - 1)
        self.fails(65, ["model.tbox"], "plan", str(box))
        os.remove(box.file("even.bin"))
        self.fails(66, ["even.bin"], "plan", str(box))

    def test_an_untrue_reader_is_refused(self):
        for command in (["plan"], ["run", "--prompt-ids", "1", "--local-ranks", "2"]):
            line = self.fails(70, ["tbox-untrue", "tensor"], *command, str(self.box(command[0])), "--load-format",
                              "tbox-untrue")
            self.assertRegex(line, r"bytes \[\d+, \+\d+\) of a file of \d+")

    def test_conform_tells_them_apart(self):
        code, out, err = run([CONCLAVE, "conform", "--plugin", os.path.join(PLUGINS["tbox"], "tbox.so"),
                              "--checkpoint", str(self.box())])
        self.assertEqual(code, 1, err)
        self.assertRegex(out, r"reader\.states +reader tbox: held")
        self.assertRegex(out, r"reader\.reads +reader tbox: held")
        self.assertRegex(out, r"reader\.states +reader tbox-untrue: BROKEN")
        self.assertEqual(out.count("BROKEN"), 1, out)


class Kernel(Case):
    def setUp(self):
        super().setUp()
        use("kernel")

    def test_it_serves_before_others(self):
        out, _ = self.succeeds("plan", shakespeare(), "--ranks", "3", "--kernels", "--json")
        served = {use["kernel"] for use in json.loads(out)["kernels"]}
        self.assertEqual(served, {"example_bf16_f32"})
        out, _ = self.succeeds("plan", shakespeare(), "--kernels", env={"CONCLAVE_PLUGIN_PATH": ""})
        self.assertNotIn("example_bf16_f32", out)
        out, _ = self.succeeds("plan", fixture("quantized/awq-gemm-g32"), "--kernels", "--activations", "f32")
        self.assertIn("example_bf16_f32: computes bf16 codes, not u4", out)

    def test_same_tokens(self):
        flags = ["run", shakespeare(), "-p", "ROMEO:", "-n", "24", "--ignore-eos", "--activations", "f32"]
        wanted = self.succeeds(*flags, env={"CONCLAVE_PLUGIN_PATH": ""})[0]
        reference = os.path.join(shakespeare(), "expected.safetensors")
        for ranks in "1", "3":
            self.assertEqual(self.succeeds(*flags, "--local-ranks", ranks)[0], wanted)
            out, _ = self.succeeds("verify", shakespeare(), "--reference", reference, "--activations", "f32",
                                   "--local-ranks", ranks)
            self.assertTrue(out.endswith("pass\n"), out)

    def test_conforms(self):
        self.succeeds("conform", "--plugin", os.path.join(PLUGINS["kernel"], "plain_kernel.so"))


PARTS = {c.__name__.lower(): c for c in (Codebook, Refusals, Reader, Kernel)}


def main():
    for name in list(os.environ):
        if name.startswith("CONCLAVE_"):
            del os.environ[name]
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(PARTS[PART])
    sys.exit(not unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful())


if __name__ == "__main__":
    main()
