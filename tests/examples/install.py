#!/usr/bin/env python3
"""install.py CONCLAVE SOURCE_DIR BUILD_DIR CMAKE CXX LAUNCHER: what is installed is enough to build
plugins with. They are copied out of the tree, configured with nothing but a copy of the prefix that
tests/package/stage.py made, and used by the installed command."""
import glob
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(sys.argv[2], "tests", "launch"))
import checkpoint

SOURCE, BUILD, CMAKE, CXX, LAUNCHER = sys.argv[2:7]
FOLDERS = {"codebook": "launch/examples/codebook-plugin", "bitsandbytes": "launch/plugins/bitsandbytes"}


def run(*command, env=None, code=0):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=300, env={**os.environ, **(env or {})})
    assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def inside(path, folder):
    return os.path.commonpath([os.path.realpath(path), os.path.realpath(folder)]) == os.path.realpath(folder)


def bitsandbytes_models():
    for path in sorted(glob.glob(os.path.join(SOURCE, "tests", "fixtures", "**", "config.json"), recursive=True)):
        with open(path) as f:
            if json.load(f).get("quantization_config", {}).get("quant_method") == "bitsandbytes":
                yield os.path.dirname(path)


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.scratch.cleanup)
        cls.prefix = os.path.join(cls.scratch.name, "prefix")
        shutil.copytree(os.path.join(BUILD, "package-prefix"), cls.prefix, symlinks=True)
        cls.conclave = os.path.join(cls.prefix, "bin", "conclave")
        cls.plugins = os.path.join(cls.prefix, "lib", "conclave", "plugins")
        # Plugins of the tree's own build came along: those built here take their place.
        shutil.rmtree(cls.plugins, ignore_errors=True)
        for name, folder in FOLDERS.items():
            cls.build(name, folder)

    @classmethod
    def build(cls, name, folder):
        copy, build = (os.path.join(cls.scratch.name, part, name) for part in ("source", "build"))
        shutil.copytree(os.path.join(SOURCE, folder), copy)
        flags = ["-DCMAKE_BUILD_TYPE=Release", f"-DCMAKE_CXX_COMPILER={CXX}", f"-DCMAKE_PREFIX_PATH={cls.prefix}",
                 f"-DCMAKE_INSTALL_PREFIX={cls.prefix}"]
        if LAUNCHER:
            flags.append(f"-DCMAKE_CXX_COMPILER_LAUNCHER={LAUNCHER}")
        run(CMAKE, "-S", copy, "-B", build, "-G", "Ninja", *flags)
        # Paths in the scratch folder differ from run to run: what is compiled does not.
        run(CMAKE, "--build", build, env={"CCACHE_BASEDIR": cls.scratch.name, "CCACHE_NOHASHDIR": "1"})
        run(CMAKE, "--install", build)

    def file(self, name):
        return os.path.join(self.plugins, name + ".so")

    def test_nothing_of_the_tree_is_seen(self):
        for name in FOLDERS:
            build = os.path.join(self.scratch.name, "build", name)
            paths = [os.path.join(build, line.strip())
                     for line in run("ninja", "-C", build, "-t", "deps").splitlines() if line.startswith("    ")]
            self.assertTrue(any(inside(path, os.path.join(self.prefix, "include")) for path in paths), paths)
            for path in paths:
                self.assertFalse(inside(path, SOURCE) or inside(path, BUILD), path)
            for folder, _, files in os.walk(os.path.join(self.prefix, "lib", "cmake")):
                for file in files:
                    with open(os.path.join(folder, file)) as f:
                        text = f.read()
                    self.assertNotIn(os.path.realpath(SOURCE) + "/", text, file)

    def test_nothing_of_ours_is_linked_with(self):
        for name in FOLDERS:
            undefined = run("nm", "--dynamic", "--demangle", "--undefined-only", self.file(name))
            self.assertIn("operator new", undefined)
            self.assertNotIn("conclave", undefined)
            exported = run("nm", "--dynamic", "--defined-only", self.file(name))
            self.assertIn("conclave_plugin_info", exported)
            self.assertNotIn("conclave", run("ldd", self.file(name)).replace(self.scratch.name, ""))

    def test_the_command_finds_them(self):
        out = run(self.conclave, "plugins")
        for name in FOLDERS:
            self.assertIn(name, out)
            self.assertIn(os.path.realpath(self.file(name)), out)
        self.assertNotIn("refused", out)
        found = {p["name"]: p for p in json.loads(run(self.conclave, "plugins", "--json"))["plugins"]}
        self.assertEqual(sorted(found), sorted(FOLDERS))
        self.assertEqual(found["codebook"]["formats"], ["codebook16"])

    def test_codebook(self):
        model, decoded, out = (os.path.join(self.scratch.name, name) for name in ("model", "decoded", "plain"))
        script = os.path.join(self.scratch.name, "source", "codebook", "write_checkpoint.py")
        run(sys.executable, script, os.path.join(SOURCE, "tests", "fixtures", "qwen3moe-odd"), model, "--decoded",
            decoded)
        run(self.conclave, "dequantize", model, "--out", out, "--local-ranks", "3")
        found = checkpoint.read_tensors(os.path.join(out, "model.safetensors"))
        for name, tensor in checkpoint.read_tensors(decoded).items():
            self.assertEqual(found[name], tensor, name)

    def test_bitsandbytes(self):
        models = list(bitsandbytes_models())
        self.assertTrue(models)
        for model in models[:2]:
            self.assertEqual(json.loads(run(self.conclave, "inspect", model, "--json"))["quantization"], "bitsandbytes")
            out = os.path.join(self.scratch.name, "plain-" + os.path.basename(model))
            run(self.conclave, "dequantize", model, "--out", out, "--local-ranks", "3")
            found = checkpoint.read_tensors(os.path.join(out, "model.safetensors"))
            with open(os.path.join(model, "expected.json")) as f:
                wanted = json.load(f)["weights_f32_sha256"]
            self.assertTrue(wanted)
            for name, digest in wanted.items():
                self.assertEqual(hashlib.sha256(found[name][2]).hexdigest(), digest, name)


def main():
    for name in list(os.environ):
        if name.startswith(("CONCLAVE_", "CMAKE_")) or name in ("CPATH", "CPLUS_INCLUDE_PATH", "LD_LIBRARY_PATH"):
            del os.environ[name]
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(Install)
    sys.exit(not unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful())


if __name__ == "__main__":
    main()
