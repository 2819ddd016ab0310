"""How the library is found, and what is said where it is not."""
import os
import subprocess
import tempfile
import unittest

from support import python

LIBRARY = os.environ["CONCLAVE_LIBRARY"]
IMPORT = "import conclave; print(conclave.__version__)"


class Library(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.scratch = scratch.name

    def imports(self, **env):
        code, out, err = python("-c", IMPORT, env=env)
        self.assertEqual((code, err), (0, ""))
        self.assertRegex(out, r"^\d+\.\d+\.\d+\n$")

    def refuses(self, *words, **env):
        code, out, err = python("-c", IMPORT, env=env)
        self.assertEqual((code, out), (1, ""))
        last = err.strip().splitlines()[-1]
        self.assertTrue(last.startswith("ImportError: "), err)
        for word in words:
            self.assertIn(word, last)

    def made(self, source):
        """A library with one function."""
        path = os.path.join(self.scratch, "libconclave.so")
        subprocess.run([os.environ["CONCLAVE_CC"], "-shared", "-fPIC", "-x", "c", "-", "-o", path],
                       input=source, text=True, check=True)
        return path

    def test_named(self):
        self.imports()
        self.imports(CONCLAVE_LIBRARY=os.path.dirname(LIBRARY))

    def test_the_package_has_its_version(self):
        code, out, err = python("-c", "import conclave, importlib.metadata\n"
                                "print(conclave.__version__, importlib.metadata.version('conclave'))")
        self.assertEqual(code, 0, err)
        self.assertEqual(*out.split())

    def test_by_the_dynamic_linker(self):
        self.imports(CONCLAVE_LIBRARY="", LD_LIBRARY_PATH=os.path.dirname(LIBRARY))

    def test_nowhere(self):
        missing = os.path.join(self.scratch, "libconclave.so")
        self.refuses("was not found", "CONCLAVE_LIBRARY", "cmake --install", missing, CONCLAVE_LIBRARY=missing)
        self.refuses(self.scratch, CONCLAVE_LIBRARY=self.scratch)

    def test_what_cannot_be_loaded_is_said(self):
        with open(os.path.join(self.scratch, "libconclave.so"), "w") as f:
            f.write("no library")
        self.refuses("libconclave.so: ", "file too short", CONCLAVE_LIBRARY=self.scratch)

    def test_another_library(self):
        path = self.made("int a(void) { return 1; }")
        self.refuses(path, "not libconclave", CONCLAVE_LIBRARY=path)

    def test_another_version(self):
        path = self.made("unsigned conclave_abi_version(void) { return 77; }")
        self.refuses(path, "77", "same release", CONCLAVE_LIBRARY=path)


if __name__ == "__main__":
    unittest.main()
