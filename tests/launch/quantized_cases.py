"""Quantized checkpoints through the command: dequantize, formats named and contradicted, sidecar
configs, plans, hostile configs."""
import hashlib
import json
import os

import checkpoint
from command import CONCLAVE, SOURCE, Case, error_lines, run


def fixture(name):
    return os.path.join(SOURCE, "tests", "fixtures", "quantized", name)


def four_bit():
    return os.path.join(SOURCE, "launch", "examples", "shakespeare-4bit")


def hashes(folder):
    out = {}
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as f:
            out[name] = hashlib.sha256(f.read()).hexdigest()
    return out


class Quantized(Case):
    def break_config(self, name, change):
        """A copy of a fixture whose quantization_config went through `change`."""
        copy = checkpoint.Copy(fixture(name), self.scratch.name, f"copy-{len(os.listdir(self.scratch.name))}")
        with open(copy.file("config.json")) as f:
            config = json.load(f)
        change(config["quantization_config"])
        copy.config(quantization_config=config["quantization_config"])
        if os.path.exists(copy.file("quantize_config.json")):
            os.remove(copy.file("quantize_config.json"))
        return copy

    def test_dequantized_files_are_the_same_at_any_rank_count(self):
        want = None
        for ranks in "1", "2", "5":
            out = os.path.join(self.scratch.name, "plain" + ranks)
            said, _ = self.succeeds("dequantize", four_bit(), "--out", out, "--dtype", "bf16", "--local-ranks", ranks,
                                    "--max-shard-size", "3MB")
            self.assertIn("wrote 135 tensors", said)
            got = hashes(out)
            self.assertIn("model.safetensors.index.json", got)
            self.assertIn("tokenizer.json", got)
            want = want or got
            self.assertEqual(got, want)
        # The result is a model like any other.
        out, _ = self.succeeds("inspect", out, "--json")
        self.assertEqual(json.loads(out)["quantization"], "none")
        said, _ = self.succeeds("run", os.path.join(self.scratch.name, "plain1"), "-p", "O Romeo", "-n", "5")
        self.assertTrue(said)

    def test_dequantize_refuses(self):
        self.fails(2, ["--out"], "dequantize", four_bit())
        with open(os.path.join(self.scratch.name, "mine"), "w") as f:
            f.write("x")
        self.fails(2, ["not empty"], "dequantize", four_bit(), "--out", self.scratch.name)
        self.fails(71, ["mine"], "dequantize", four_bit(), "--out", os.path.join(self.scratch.name, "mine"))
        self.fails(2, ["--dtype"], "dequantize", four_bit(), "--out", "x", "--dtype", "f64")

    def test_full_disk(self):
        out = os.path.join(self.scratch.name, "plain")
        # A limit on the size of files stands for the disk that is full.
        command = ["bash", "-c", f"ulimit -f 64; trap '' XFSZ; exec {CONCLAVE} dequantize {four_bit()} --out {out} --local-ranks 2"]
        self.check_failure(run(command), 71, ["model"], command)
        self.assertEqual([n for n in os.listdir(out) if n.endswith(".safetensors") or n == "config.json"], [])

    def test_quantization_is_named_and_checked(self):
        model = fixture("awq-gemm-g32")
        self.succeeds("plan", model, "--quantization", "awq")
        self.fails(2, ["awq"], "plan", model, "--quantization", "gptq")
        self.fails(2, ["gptq"], "plan", model, "--quantization", "fancy")
        self.fails(78, ["fancy"], "plan", str(self.break_config("awq-gemm-g32", lambda q: q.update(quant_method="fancy"))))

    def test_config_beside_config_json(self):
        copy = checkpoint.Copy(fixture("gptq-4bit-g64-actorder"), self.scratch.name, "copy")
        copy.config(quantization_config=None)
        self.assertTrue(os.path.exists(copy.file("quantize_config.json")))
        out, _ = self.succeeds("verify", str(copy), "--reference", copy.file("expected.safetensors"), "--activations", "f32")
        self.assertTrue(out.endswith("pass\n"))
        os.remove(copy.file("quantize_config.json"))
        self.fails((65, 78), [], "plan", str(copy))

    def test_plan_says_which_kernel_serves_and_why_not_others(self):
        out, _ = self.succeeds("plan", fixture("ct-w4a16-g64-asym"), "--ranks", "3", "--kernels")
        self.assertIn("grouped_u4_i8", out)
        self.assertIn("int4 g64 asym", out)
        self.assertIn("computes u8 codes, not u4", out)
        out, _ = self.succeeds("plan", fixture("ct-w4a16-g64-asym"), "--activations", "f32", "--kernels")
        self.assertIn("grouped_u4_f32", out)

    def test_inspect_counts_what_it_means(self):
        plain, _ = self.succeeds("inspect", os.path.join(SOURCE, "launch", "examples", "shakespeare"), "--json")
        packed, _ = self.succeeds("inspect", four_bit(), "--json")
        self.assertEqual(json.loads(plain)["parameters"], json.loads(packed)["parameters"])
        self.assertIn("int4 g32", [m["encoding"] for m in json.loads(packed)["matrices"]])

    def test_hostile_configs(self):
        def group(q):
            return q["config_groups"]["group_0"]["weights"]

        for change, words in (
            (lambda q: q.pop("bits"), ["bits"]),
            (lambda q: q.update(bits="four"), ["bits"]),
            (lambda q: q.update(bits=-4), ["bits"]),
            (lambda q: q.update(bits=1 << 40), ["bits"]),
            (lambda q: q.update(group_size=0), ["group_size"]),
            (lambda q: q.update(group_size=77), []),
            (lambda q: q.update(checkpoint_format="gptq_v9"), ["gptq_v9"]),
            (lambda q: q.update(dynamic={"+:(((": {"bits": 8}}), ["((("]),
        ):
            broken = self.break_config("gptq-4bit-g32-asym", change)
            for ranks in "1", "3":
                line = self.fails((65, 78), words, "run", str(broken), "--prompt-ids", "1", "--local-ranks", ranks)
                self.assertIn("copy-", line)
        for change in (
            lambda q: q.pop("config_groups"),
            lambda q: q.update(config_groups=[]),
            lambda q: group(q).update(num_bits=0),
            lambda q: group(q).update(group_size=-7),
            lambda q: group(q).update(strategy="vibes"),
            lambda q: q.update(transform_config={"config_groups": {"u": {"type": "hadamard"}}}),
        ):
            self.fails((65, 78), [], "run", str(self.break_config("ct-w4a16-g64-asym", change)), "--prompt-ids", "1")

    def test_hostile_tensors(self):
        def damage(name, fixture_name, change):
            copy = checkpoint.Copy(fixture(fixture_name), self.scratch.name, f"copy-{len(os.listdir(self.scratch.name))}")
            copy.tensors(change)
            return self.fails(65, [name], "run", str(copy), "--prompt-ids", "1", "--local-ranks", "2")

        stem = "model.layers.1.mlp.experts.3.up_proj."

        def wrong_scales(t):
            dtype, shape, data = t[stem + "scales"]
            t[stem + "scales"] = (dtype, [shape[1], shape[0]], data)

        def group_out_of_range(t):
            dtype, shape, data = t[stem + "g_idx"]
            t[stem + "g_idx"] = (dtype, shape, b"\x63\0\0\0" + data[4:])

        def negative_group(t):
            dtype, shape, data = t[stem + "g_idx"]
            t[stem + "g_idx"] = (dtype, shape, b"\xff" * 4 + data[4:])

        def lost_scales(t):
            del t[stem + "scales"]

        def infinite_scale(t):
            dtype, shape, data = t[stem + "scales"]
            self.assertEqual(dtype, "F16")
            t[stem + "scales"] = (dtype, shape, data[:20] + b"\x00\x7c" + data[22:])

        def strange_zero(t):
            dtype, shape, data = t[stem + "zero"]
            self.assertEqual(dtype, "BF16")
            t[stem + "zero"] = (dtype, shape, data[:-2] + b"\xc0\x7f")

        self.assertIn("inf for row 10", damage(stem + "scales", "gptq-4bit-g64-actorder", infinite_scale))
        self.assertIn("nan for row", damage(stem + "zero", "hqq-4bit-g64", strange_zero))
        damage(stem + "scales", "gptq-4bit-g64-actorder", wrong_scales)
        self.assertIn("99", damage(stem + "g_idx", "gptq-4bit-g64-actorder", group_out_of_range))
        self.assertIn("-1", damage(stem + "g_idx", "gptq-4bit-g64-actorder", negative_group))
        damage(stem + "scales", "gptq-4bit-g64-actorder", lost_scales)

    def test_parts_of_one_layer_may_be_stored_differently(self):
        """Float weights beside quantized ones, inside one fused layer and among experts."""
        plain = os.path.join(self.scratch.name, "plain")
        self.succeeds("dequantize", fixture("gptq-4bit-g64-actorder"), "--out", plain)
        floats = checkpoint.read_tensors(os.path.join(plain, "model.safetensors"))
        copy = checkpoint.Copy(fixture("gptq-4bit-g64-actorder"), self.scratch.name, "mixed")

        def mix(tensors):
            for stem in ("model.layers.0.self_attn.k_proj", "model.layers.0.mlp.experts.1.up_proj",
                         "model.layers.1.mlp.experts.4.gate_proj", "model.layers.1.mlp.experts.4.down_proj"):
                for name in [n for n in tensors if n.startswith(stem + ".")]:
                    del tensors[name]
                tensors[stem + ".weight"] = floats[stem + ".weight"]

        copy.tensors(mix)
        for ranks in "1", "3":
            out, _ = self.succeeds("verify", str(copy), "--reference", copy.file("expected.safetensors"),
                                   "--activations", "f32", "--local-ranks", ranks)
            self.assertTrue(out.endswith("pass\n"))
            self.succeeds("run", str(copy), "--prompt-ids", "1,2,3", "-n", "4", "--local-ranks", ranks)

    def test_dummy_weights_of_integer_encodings(self):
        shape = os.path.join(SOURCE, "tests", "fixtures", "qwen3moe-odd")
        for encoding in "int4-g32", "int4-g128", "int8", "int3-g64":
            out, _ = self.succeeds("bench", shape, "--load-format", "dummy", "--dummy-dtype", encoding, "-p", "9", "-n",
                                   "3", "-r", "1", "-t", "1", "--local-ranks", "2", "--json")
            self.assertTrue(json.loads(out)[0]["description"].startswith("int8"))
        self.fails(2, ["int9"], "bench", shape, "--load-format", "dummy", "--dummy-dtype", "int9")
