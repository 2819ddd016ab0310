#!/usr/bin/env python3
"""hosts.py CONCLAVE SOURCE_DIR PART: the command on several network hosts, made by testhosts, and
what it does when one of them is lost. PART is the name of one class below, in lower case. Exits with
77 and the reason where this machine cannot make such hosts."""
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "faults"))
from job import Watched

CONCLAVE, SOURCE = "", ""
DEADLINE = 5
SOON = 15  # seconds beyond the deadline until nothing of the job is left on any host
ALONE = {**os.environ, "CONCLAVE_PLUGIN_PATH": ""}


def testhosts():
    return os.path.join(SOURCE, "tests", "hosts", "testhosts")


class Job(Watched):
    """conclave on `hosts` hosts, one rank each."""

    def __init__(self, hosts, arguments, options=()):
        super().__init__([testhosts(), "-n", str(hosts), *options, "--", CONCLAVE, *map(str, arguments)], ALONE)

    def do(self, verb, host):
        subprocess.run([testhosts(), verb, host, str(self.process.pid)], check=True, timeout=10)

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()  # testhosts removes everything
            self.process.wait(30)
        for stream in self.process.stdout, self.process.stderr:
            stream.close()


class Case(unittest.TestCase):
    def job(self, *arguments, **options):
        job = Job(*arguments, **options)
        self.addCleanup(job.close)
        return job

    def result(self, hosts, arguments, options=()):
        """Standard output of a command that succeeds."""
        job = self.job(hosts, arguments, options=("-t", "120", *options))
        code = job.end(150)
        self.assertEqual(code, 0, f"{job.out}\n{job.err}")
        return job.out


class Works(Case):
    @classmethod
    def setUpClass(cls):
        cls.model = os.path.join(SOURCE, "launch", "examples", "shakespeare")
        cls.prompt = ["run", cls.model, "--prompt", "O Romeo, Romeo!", "-n", "16", "--deterministic"]
        done = subprocess.run([CONCLAVE, *cls.prompt], capture_output=True, text=True, timeout=120, env=ALONE)
        assert done.returncode == 0, done.stderr
        cls.text = done.stdout

    def run_verify_and_doctor(self, hosts, options=()):
        self.assertEqual(self.result(hosts, self.prompt, options), self.text)
        verify = ["verify", self.model, "--reference", os.path.join(self.model, "expected.safetensors")]
        verdict = json.loads(self.result(hosts, [*verify, "--activations", "f32", "--json"], options))
        self.assertTrue(verdict["pass"], verdict)
        report = json.loads(self.result(hosts, ["doctor", "--json"], options))
        self.assertEqual([r["host"] for r in report["ranks"]], [f"h{i}" for i in range(1, hosts + 1)])
        for a in range(hosts):
            for b in range(a + 1, hosts):
                self.assertGreater(report["latency_us"][a][b], 0)
        return report

    def test_2_hosts(self):
        self.run_verify_and_doctor(2)

    def test_3_hosts(self):
        self.run_verify_and_doctor(3)

    def test_4_hosts(self):
        self.run_verify_and_doctor(4)


class Slow(Works):
    test_2_hosts = test_3_hosts = test_4_hosts = None

    def test_100_megabits(self):
        report = self.run_verify_and_doctor(2, ["-r", "100"])
        # 12.5 MB/s; the limit lets a burst of 256 KB through.
        self.assertGreater(report["bandwidth_bytes_per_second"][0][1], 6e6)
        self.assertLess(report["bandwidth_bytes_per_second"][0][1], 20e6)
        links = [a for a in report["advice"] if a["topic"] == "links"]
        self.assertTrue(any("between hosts h1 and h2" in a["reason"] for a in links), report["advice"])

    def test_10_megabits_end_soon(self):
        report = json.loads(self.result(3, ["doctor", "--json"], ["-r", "10"]))
        for a, b in (0, 1), (0, 2), (1, 2):
            self.assertLess(report["bandwidth_bytes_per_second"][a][b], 4e6)


class Lost(Case):
    @classmethod
    def setUpClass(cls):
        sys.path.insert(0, os.path.join(SOURCE, "tests", "faults"))
        import model

        cls.scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.scratch.cleanup)
        cls.model = os.path.join(cls.scratch.name, "model")
        os.mkdir(cls.model)
        model.write(cls.model)

    def loses(self, verb, host, phase, named, hosts=3):
        """Does it to a host of a job in that phase. Nothing is left anywhere in time, and standard
        error has `named`."""
        arguments = ["run", self.model, "--prompt-ids", "1,2,3", "-n", 6000, "--ignore-eos", "--deadline", DEADLINE]
        job = self.job(hosts, arguments, options=("-t", "200", "-w", "60"))
        job.wait_for("err", r"loading +[2-9]0 %" if phase == "load" else "loaded ", 90)
        if phase == "decode":
            job.wait_for("out", r"\d+ \d+ ", 90)
        begin = time.monotonic()
        job.do(verb, host)
        code = job.end(DEADLINE + SOON)
        print(f"{verb} {host} in {phase}: {time.monotonic() - begin:.1f} s, exit code {code}", file=sys.stderr)
        self.assertNotIn(code, (0, 77, 98), job.err)
        if named is not None:
            self.assertRegex(job.err, named)


class Cut(Lost):
    def test_a_host_in_decode(self):
        self.loses("cut", "h2", "decode", r"conclave: error: deadline of 5 s.*missing.*host h2")

    def test_a_host_while_loading(self):
        self.loses("cut", "h3", "load", r"conclave: error: deadline of 5 s.*missing.*host h3")

    def test_the_host_of_rank_0(self):
        self.loses("cut", "h1", "decode", r"conclave: error: deadline of 5 s.*missing.*host h[23]")


class Kill(Lost):
    """mpirun ends these jobs itself. It names the host where it sees first that the connection to its
    daemon there is gone, and not where what started that daemon (here: testhosts) has ended before;
    then rank 0 says it, and with it hosts whose ranks mpirun has ended already."""

    NAMED = r"(conclave: error: no connection is left with .*host |Remote daemon: .* on node )"

    def test_a_host_in_decode(self):
        self.loses("kill", "h2", "decode", self.NAMED + "h2")

    def test_a_host_while_loading(self):
        self.loses("kill", "h3", "load", self.NAMED + "h3")

    def test_the_host_of_rank_0(self):
        self.loses("kill", "h1", "decode", None)  # mpirun is gone: nobody could print anything


def skip_reason():
    done = subprocess.run([testhosts(), "-r", "100", "--", "true"], capture_output=True, text=True, timeout=120)
    return done.stdout.strip() if done.returncode == 77 else None


if __name__ == "__main__":
    CONCLAVE, SOURCE = sys.argv[1], sys.argv[2]
    if reason := skip_reason():
        print(reason)
        sys.exit(77)
    unittest.main(argv=[sys.argv[0], sys.argv[3].capitalize()], verbosity=2)
