#!/usr/bin/env python3
"""faults.py CONCLAVE SOURCE_DIR PART: does things to ranks and files, and sees that the job ends soon,
with an error code and a line that says why. PART is the name of one class below, in lower case."""
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import model
from job import Job

CONCLAVE, SOURCE = "", ""
SOON = 5  # seconds that a job may live after one of its ranks has died
DEADLINE = 3
HUNG = DEADLINE + 10  # seconds that a job may live after one of them has stopped


class Faults(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.scratch.cleanup)
        cls.model = os.path.join(cls.scratch.name, "model")
        os.mkdir(cls.model)
        model.write(cls.model)

    def start(self, phase, *options):
        """A job of 4 ranks that is amidst `phase`."""
        prompt, tokens = (",".join(["7"] * 6000), 9) if phase == "prefill" else ("1,2,3", 6000)
        job = Job(CONCLAVE, 4, ["run", self.model, "--prompt-ids", prompt, "-n", tokens, "--ignore-eos", "-v", *options])
        self.addCleanup(job.close)
        if phase == "load":
            job.wait_for("err", r"loading +[1-9]0 %")
        else:
            job.wait_for("err", r"loaded ")
        if phase == "prefill":
            time.sleep(0.3)
        if phase == "decode":
            job.wait_for("out", r"\d+ \d+ ")
        return job

    def ended(self, job, within, line):
        """The job ends in time and in error, has printed `line`, and leaves no process."""
        code = job.end(within)
        self.assertNotEqual(code, 0, job.err)
        self.assertRegex(job.err, line)
        job.wait_for_none(2)
        return code

    def dies(self, phase, rank, number):
        job = self.start(phase)
        job.signal(rank, number)
        self.ended(job, SOON, rf"process rank {rank} .*exited on signal {int(number)}\b")

    def hangs(self, phase, rank, named):
        job = self.start(phase, "--deadline", DEADLINE)
        job.signal(rank, signal.SIGSTOP)
        code = self.ended(job, HUNG, rf'conclave: error: .*deadline of {DEADLINE} s.*rank {rank} .*phase "{named}')
        self.assertEqual(code, 75)
        # One line, but that mpirun wakes a stopped rank to end it, which may then say the same.
        said = set(re.findall("conclave: error:.*", job.err))
        self.assertEqual(len(said), 1, job.err)


class Load(Faults):
    def test_killed(self):
        self.dies("load", 1, signal.SIGKILL)

    def test_crashes(self):
        self.dies("load", 0, signal.SIGSEGV)

    def test_terminated(self):
        self.dies("load", 3, signal.SIGTERM)


class Prefill(Faults):
    def test_killed(self):
        self.dies("prefill", 0, signal.SIGKILL)

    def test_crashes(self):
        self.dies("prefill", 2, signal.SIGSEGV)

    def test_terminated(self):
        self.dies("prefill", 1, signal.SIGTERM)


class Decode(Faults):
    def test_killed(self):
        self.dies("decode", 3, signal.SIGKILL)

    def test_crashes(self):
        self.dies("decode", 1, signal.SIGSEGV)

    def test_terminated(self):
        self.dies("decode", 0, signal.SIGTERM)


class Hang(Faults):
    def test_while_loading(self):
        self.hangs("load", 2, "load")

    def test_in_a_step(self):
        self.hangs("prefill", 1, "")


class HangAtEnds(Faults):
    def test_a_follower(self):
        self.hangs("decode", 3, "")

    def test_rank_0_in_a_step(self):
        self.hangs("prefill", 0, "")


class Mpirun(Faults):
    def test_terminated(self):
        job = self.start("decode")
        job.signal(None, signal.SIGTERM)
        self.ended(job, SOON, "loaded")

    def test_killed(self):
        """Its ranks notice that it is gone."""
        job = self.start("decode")
        job.signal(None, signal.SIGKILL)
        job.end(SOON)
        end = time.monotonic() + SOON
        while job.processes() and time.monotonic() < end:
            time.sleep(0.05)
        self.assertEqual(job.processes(), {})


class Files(unittest.TestCase):
    """What stands where a file should be."""

    NAMES = ("config.json", "generation_config.json", "tokenizer.json", "model.safetensors", "model.safetensors.index.json")

    def refused(self, directory, name, *launcher):
        done = subprocess.run(
            [*launcher, CONCLAVE, "run", directory, "-p", "x", "-n", "2"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10,
        )  # fmt: skip
        self.assertEqual((done.returncode, done.stdout), (66, ""), f"{name}\n{done.stderr}")
        lines = [line for line in done.stderr.splitlines() if line.startswith("conclave: error:")]
        self.assertEqual(len(lines), 1, done.stderr)
        self.assertIn(os.path.join(directory, name), lines[0])

    def each(self, make):
        for name in self.NAMES:
            with tempfile.TemporaryDirectory() as scratch, self.subTest(name):
                directory = os.path.join(scratch, "model")
                shutil.copytree(os.path.join(SOURCE, "launch", "examples", "shakespeare"), directory)
                path = os.path.join(directory, name)
                if os.path.exists(path):
                    os.remove(path)
                make(path)
                self.refused(directory, name)
                if name == "model.safetensors":
                    self.refused(directory, name, "mpirun", "-n", "3")

    def test_a_directory(self):
        self.each(os.mkdir)

    def test_a_pipe_that_nobody_writes(self):
        self.each(os.mkfifo)

    def test_a_link_to_nothing(self):
        self.each(lambda path: os.symlink("/no/such/file", path))

    def test_a_link_to_itself(self):
        self.each(lambda path: os.symlink(path, path))


PARTS = {c.__name__.lower(): c for c in (Load, Prefill, Decode, Hang, HangAtEnds, Mpirun, Files)}


def main():
    global CONCLAVE, SOURCE
    CONCLAVE, SOURCE, part = sys.argv[1:4]
    for name in list(os.environ):
        if name.startswith("CONCLAVE_"):
            del os.environ[name]
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(PARTS[part])
    sys.exit(not unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful())


if __name__ == "__main__":
    main()
