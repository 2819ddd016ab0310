"""conclave under mpirun, watched: what it prints and when, its ranks' processes, how it ends."""
import os
import re
import signal
import subprocess
import threading
import time
import uuid

MARK = "CONCLAVE_FAULTS_MARK"


class Watched:
    """A process, and what it prints while it runs."""

    def __init__(self, command, environment):
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )
        self.out, self.err = "", ""
        self.threads = [threading.Thread(target=self._read, args=(s,), daemon=True) for s in ("out", "err")]
        for thread in self.threads:
            thread.start()

    def _read(self, stream):
        source = self.process.stdout if stream == "out" else self.process.stderr
        while data := os.read(source.fileno(), 4096):
            setattr(self, stream, getattr(self, stream) + data.decode("utf-8", "replace"))

    def wait_for(self, stream, pattern, seconds=60):
        """Until what was printed matches."""
        end = time.monotonic() + seconds
        while not re.search(pattern, getattr(self, stream)):
            if time.monotonic() > end or self.process.poll() is not None:
                raise AssertionError(f"no {pattern!r} on std{stream}:\n{self.out}\n{self.err}")
            time.sleep(0.005)

    def end(self, seconds):
        """The exit code; fails after so many seconds."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s:\n{self.out}\n{self.err}") from None
        for thread in self.threads:
            thread.join(5)
        return code


class Job(Watched):
    def __init__(self, conclave, ranks, arguments):
        self.mark = uuid.uuid4().hex
        command = ["mpirun", "-n", str(ranks), conclave, *map(str, arguments)]
        super().__init__(command, {**os.environ, MARK: self.mark})

    def processes(self):
        """{process id: rank, None for mpirun} of all that are alive."""
        found = {}
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                with open(f"/proc/{entry}/environ", "rb") as f:
                    variables = dict(v.split(b"=", 1) for v in f.read().split(b"\0") if b"=" in v)
            except OSError:
                continue
            if variables.get(MARK.encode()) == self.mark.encode():
                rank = variables.get(b"OMPI_COMM_WORLD_RANK")
                found[int(entry)] = None if rank is None else int(rank)
        return found

    def signal(self, rank, number):
        """To one rank; to mpirun where rank is None."""
        (process,) = [p for p, r in self.processes().items() if r == rank]
        os.kill(process, number)

    def wait_for_none(self, seconds):
        """Until no process of the job is left."""
        end = time.monotonic() + seconds
        while left := self.processes():
            if time.monotonic() > end:
                raise AssertionError(f"left behind: {left}")
            time.sleep(0.01)

    def close(self):
        """Nothing is left behind, whatever happened."""
        for process in self.processes():
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()
