"""plugins_test.py FOLDER: formats from outside, of which FOLDER has bitsandbytes."""
import json
import os
import sys
import unittest

import conclave
from support import SOURCE

FOLDER = sys.argv.pop(1)
MODEL = os.path.join(SOURCE, "tests", "fixtures", "bitsandbytes", "nf4-double")


class Plugins(unittest.TestCase):
    def test_engine(self):
        self.assertFalse(conclave.inspect(MODEL)["supported"])
        with self.assertRaisesRegex(conclave.UnsupportedError, "bitsandbytes"):
            conclave.Engine(MODEL)
        plugins = conclave.load_plugins(FOLDER)
        self.assertIn("bitsandbytes", json.dumps(plugins.report))
        self.assertTrue(conclave.inspect(MODEL, plugins=plugins)["supported"])
        self.assertEqual(len(conclave.plan(MODEL, ranks=2, plugins=plugins)["ranks"]), 2)
        with conclave.Engine(MODEL, plugins=plugins) as engine:
            del plugins  # the engine keeps them
            result = engine.generate([1, 2, 3], max_tokens=4, ignore_eos=True)
            self.assertEqual((len(result.tokens), result.text), (4, ""))
            with self.assertRaisesRegex(conclave.UsageError, "tokenizer"):
                engine.generate("text")
        with self.assertRaisesRegex(conclave.UsageError, "load_plugins"):
            conclave.Engine(MODEL, plugins=[FOLDER])


if __name__ == "__main__":
    unittest.main()
