#!/usr/bin/env python3
"""examples.py SOURCE_DIR BUILD_DIR sockets|mpi [MPIEXEC]: the examples as built against the installed
package (tests/package), on the small model. Their texts are those of one engine alone."""
import os
import re
import socket
import subprocess
import sys
import time

SOURCE, BUILD, PART = sys.argv[1:4]
MODEL = os.path.join(SOURCE, "launch", "examples", "shakespeare")
PROMPT = "O Romeo, Romeo! "
COMMON = [MODEL, "--prompt", PROMPT, "-n", "24", "--deterministic"]
PATIENCE = 60  # seconds; nothing here takes more than a few


def program(name):
    return os.path.join(BUILD, "package-examples", name, name)


def check(condition, *what):
    if not condition:
        sys.exit("not so: " + " | ".join(str(w) for w in what))


def one_engine():
    """What the command says, on one rank."""
    command = [os.path.join(BUILD, "package-prefix", "bin", "conclave"), "run", *COMMON]
    text = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout
    check(text.strip(), "the command generates a text", text)
    return text if text.startswith(PROMPT) else PROMPT + text


def same_text(found, expected):
    check(found.rstrip() == expected.rstrip(), "the text is that of one engine", found, expected)


def free_peers(count):
    """Addresses that were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    peers = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    return peers


class Mesh:
    """The processes of one run of socket-transport."""

    def __init__(self, ranks, more=None):
        peers = ",".join(free_peers(ranks))
        self.processes = [
            subprocess.Popen([program("socket-transport"), *COMMON, "--peers", peers, "--rank", str(r),
                              *(more or {}).get(r, [])],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for r in range(ranks)]

    def end(self):
        """(exit code, stdout, stderr) of each rank."""
        until = time.monotonic() + PATIENCE
        try:
            return [(*reversed(p.communicate(timeout=max(0.1, until - time.monotonic()))), p.returncode)[::-1]
                    for p in self.processes]
        except subprocess.TimeoutExpired:
            sys.exit("a process does not end")
        finally:
            for p in self.processes:
                p.kill()


def sockets():
    expected = one_engine()
    for ranks in 1, 3:
        ended = Mesh(ranks).end()
        check(all(code == 0 for code, _, _ in ended), ended)
        same_text(ended[0][1], expected)
    # A collective of one rank fails: the first, one while loading, and one in a step.
    for rank, call in (1, 0), (0, 9), (2, 150):
        for code, out, errors in Mesh(3, {rank: ["--fail-at", str(call)]}).end():
            check(code == 1 and out == "" and "status 1042 " in errors, rank, call, code, out, errors)
            check(f"rank {rank}" in errors, "who failed is named", errors)
    # A process ends without a word: its closed connections are an error, and no signal.
    for rank, call in (1, 150), (0, 30):
        for r, (code, _, errors) in enumerate(Mesh(3, {rank: ["--exit-at", str(call)]}).end()):
            if r != rank:
                check(code == 1 and "status 2001 " in errors, r, code, errors)


def mpi():
    expected = one_engine()
    heats = set()
    for ranks, more in (2, []), (4, []), (3, ["--engine-ranks", "2"]):
        command = [sys.argv[4], "-n", str(ranks), program("embed-mpi"), *COMMON, *more]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        check(ended.returncode == 0, ended)
        text, engine, heat = re.fullmatch(r"(.*)\n(engine: .*)\n(heat: .*)\n", ended.stdout, re.S).groups()
        same_text(text, expected)
        check(f"engine: {2 if more else ranks // 2} ranks, " in engine, engine)
        heats.add(heat.partition("steps, ")[2])
    check(len(heats) == 1, "the other work does not depend on the engine", heats)
    check("total 4096.000000" in heats.pop(), "no heat is lost")


{"sockets": sockets, "mpi": mpi}[PART]()
