"""How the command finds plugins, lists them and goes on without those that it refuses. What plugins
do is tested in tests/plugins and tests/examples."""
import json
import os
import shutil

from command import CONCLAVE, Case, run, shakespeare


class Plugins(Case):
    def setUp(self):
        super().setUp()
        self.bad = os.path.join(self.scratch.name, "bad.so")
        with open(self.bad, "wb") as f:
            f.write(b"no shared object" * 300)
        with open(os.path.join(self.scratch.name, "notes.txt"), "w") as f:
            f.write("passed over")
        self.env = {"CONCLAVE_PLUGIN_PATH": f":/not/there:{self.scratch.name}"}
        self.warning = f"conclave: warning: plugin {self.bad} refused: cannot be opened: {self.bad}: invalid ELF header"

    def test_list(self):
        out, err = self.succeeds("plugins", "--json", env=self.env)
        self.assertEqual(err, "")
        listed = json.loads(out)
        beside = os.path.dirname(os.path.realpath(CONCLAVE))
        self.assertEqual(listed["directories"][:4], [
            "/not/there", self.scratch.name, os.path.join(beside, "plugins"),
            os.path.join(os.path.dirname(beside), "lib", "conclave", "plugins")])
        bad = listed["plugins"][0]
        self.assertEqual(bad["file"], self.bad)
        self.assertIn("invalid ELF header", bad["refusal"])
        self.assertEqual(bad["formats"], [])
        for plugin in listed["plugins"][1:]:  # of the build
            self.assertEqual(plugin["refusal"], "", plugin)
            self.assertTrue(plugin["formats"] + plugin["indexers"] + plugin["kernels"] + plugin["readers"])
        out, err = self.succeeds("plugins", env=self.env)
        self.assertEqual(err, "")
        self.assertRegex(out, f"refused +cannot be opened: {self.bad}")
        self.assertIn(self.scratch.name, out)
        self.assertNotIn("notes.txt", out)

    def test_refusals_are_warnings(self):
        model = shakespeare()
        plain, _ = self.succeeds("inspect", model)
        out, err = self.succeeds("inspect", model, env=self.env)
        self.assertEqual(out, plain)
        self.assertEqual(err.splitlines(), [self.warning])
        for ranks in (["mpirun", "-n", "2", CONCLAVE, "run"], [CONCLAVE, "run", "--local-ranks", "2"]):
            code, out, err = run([*ranks, model, "-p", "O", "-n", "2", "-t", "1"], env=self.env)
            self.assertEqual(code, 0, err)
            self.assertEqual(err.splitlines().count(self.warning), 1, err)
            self.assertEqual(err.count("warning: plugin"), 1, err)

    def test_help_loads_none(self):
        for arguments in (["--help"], ["--version"], ["version"], ["run", "--help"], ["plugins", "--help"]):
            self.assertEqual(self.succeeds(*arguments, env=self.env)[1], "", arguments)
        self.fails(2, ["no model"], "run", env=self.env)
        self.assertNotIn("plugin", run([CONCLAVE, "run"], env=self.env)[2])

    def test_a_program_finds_what_lies_beside_it(self):
        folder = os.path.join(self.scratch.name, "root", "bin")
        for plugins in (os.path.join(folder, "plugins"), os.path.join(folder, "..", "lib", "conclave", "plugins")):
            os.makedirs(plugins)
            shutil.copy(self.bad, plugins)
        program = os.path.join(folder, "conclave")
        shutil.copy(CONCLAVE, program)
        code, out, err = run([program, "plugins", "--json"])
        self.assertEqual(code, 0, err)
        root = os.path.realpath(os.path.join(self.scratch.name, "root"))
        self.assertEqual([p["file"] for p in json.loads(out)["plugins"]],
                         [f"{root}/bin/plugins/bad.so", f"{root}/lib/conclave/plugins/bad.so"])

    def test_load_format_names_a_reader(self):
        model = shakespeare()
        self.assertEqual(self.succeeds("inspect", model, "--load-format", "safetensors"),
                         self.succeeds("inspect", model))
        self.fails(2, ["--load-format", "auto, dummy, safetensors", "tapes"], "inspect", model, "--load-format",
                   "tapes")
        self.fails(2, ["extra"], "plugins", "extra")
