"""Runs the conclave command, the first argument, on the source tree, the second."""
import os
import subprocess
import sys
import tempfile
import unittest

import checkpoint

CONCLAVE, SOURCE = sys.argv[1:3]


def shakespeare():
    return os.path.join(SOURCE, "launch", "examples", "shakespeare")


def text():
    return os.path.join(SOURCE, "tests", "fixtures", "shakespeare.txt")


def run(command, env=None, timeout=300):
    """(exit code, stdout, stderr), as text with undecodable bytes kept visible."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, env={**os.environ, **(env or {})}
    )
    return done.returncode, done.stdout.decode("utf-8", "backslashreplace"), done.stderr.decode("utf-8", "replace")


def error_lines(stderr):
    return [line for line in stderr.splitlines() if line.startswith("conclave: error:")]


class Case(unittest.TestCase):
    def setUp(self):
        self.scratch = tempfile.TemporaryDirectory()
        self.addCleanup(self.scratch.cleanup)

    def copy(self, name="copy"):
        return checkpoint.Copy(shakespeare(), self.scratch.name, name)

    def succeeds(self, *arguments, **options):
        code, out, err = run([CONCLAVE, *arguments], **options)
        self.assertEqual(code, 0, f"{arguments}\n{out}\n{err}")
        return out, err

    def check_failure(self, result, codes, names, what):
        code, out, err = result
        self.assertIn(code, codes if isinstance(codes, tuple) else (codes,), f"{what}\n{out}\n{err}")
        self.assertEqual(out, "", what)
        lines = error_lines(err)
        self.assertEqual(len(lines), 1, f"{what}\n{err}")
        for name in names:
            self.assertIn(name, lines[0], what)
        return lines[0]

    def fails(self, codes, names, *arguments, **options):
        """One error line that has all of `names`, nothing on standard output, and the exit code."""
        return self.check_failure(run([CONCLAVE, *arguments], **options), codes, names, arguments)
