"""rank_checks.py FOLDER RANKS: run by all ranks together, see ranks_test.py."""
import json
import os
import sys
import traceback

import conclave
import numpy
from interrupting import WhenAsked
from mpi4py import MPI

FOLDER, RANKS = sys.argv[1], int(sys.argv[2])
WORLD = MPI.COMM_WORLD
with open(os.path.join(FOLDER, "wanted.json")) as file:
    WANTED = json.load(file)
WHEN_ASKED = WhenAsked()
MODEL, PROMPT, TOKENS = (WANTED[name] for name in ("model", "prompt", "tokens"))


def engine_on(comm, **options):
    return conclave.Engine(MODEL, comm, deterministic=True, threads=1, **options)


def raises(error, function, *arguments, **options):
    try:
        function(*arguments, **options)
    except error as raised:
        return raised
    raise AssertionError(f"{error} was not raised")


def check_the_command_s_text():
    with engine_on(WORLD) as engine:
        assert (engine.rank, engine.size) == (WORLD.rank, RANKS)
        if engine.rank != 0:
            assert "follow()" in str(raises(conclave.UsageError, engine.generate, PROMPT))
            engine.follow()
            engine.follow()  # rank 0 has closed its engine: nothing is left to follow
            return
        result = engine.generate(PROMPT, max_tokens=TOKENS)
        assert result.text == WANTED["text"], result
        pieces = [piece.text for piece in engine.stream(PROMPT, max_tokens=TOKENS)]
        assert "".join(pieces) == WANTED["text"]
        left = engine.stream(PROMPT, max_tokens=500)
        next(left)
        left.close()
        assert engine.generate([PROMPT, PROMPT], max_tokens=TOKENS) == [result, result]


def check_logits_are_those_of_one_rank():
    with engine_on(WORLD) as engine:
        if engine.rank == 0:  # the others follow at the end of the block
            wanted = numpy.load(os.path.join(FOLDER, "logits.npy"))
            numpy.testing.assert_array_equal(engine.logits(WANTED["ids"]), wanted)


def check_parts_of_the_world():
    part = WORLD.Split(WORLD.rank % 2)
    with engine_on(part) as engine:
        if part.rank == 0:
            assert engine.generate(PROMPT, max_tokens=TOKENS).text == WANTED["text"]
    assert part.allreduce(1) == part.size  # it is still the program's own
    part.Free()


def check_errors_are_everybody_s():
    error = raises(conclave.MissingFileError, conclave.Engine, "/no/such/model", WORLD)
    assert "/no/such/model" in str(error)
    wrong = "f32" if WORLD.rank == RANKS - 1 else "abacus"
    if RANKS > 1:
        raises(conclave.Error, conclave.Engine, MODEL, WORLD, activations=wrong)
    raises(conclave.UsageError, conclave.Engine, MODEL, MPI.COMM_NULL)


def check_progress_that_raises():
    def broken(*_):
        raise KeyError("mine")

    raises(KeyError if WORLD.rank == 0 else conclave.Error, engine_on, WORLD, progress=broken)


def check_interrupted_leader():
    with engine_on(WORLD) as engine:
        if engine.rank == 0:
            WHEN_ASKED.armed = True
            try:
                while True:
                    engine.generate(PROMPT, max_tokens=300, ignore_eos=True)
            except KeyboardInterrupt:
                pass
            assert engine.generate(PROMPT, max_tokens=TOKENS).text == WANTED["text"]


def check_interrupted_follower():
    if RANKS == 1:
        return

    def run():
        with engine_on(WORLD) as engine:
            WHEN_ASKED.armed = engine.rank == RANKS - 1
            if engine.rank > 0:
                engine.follow()
            while True:
                engine.generate(PROMPT, max_tokens=300, ignore_eos=True)

    raises(KeyboardInterrupt if WORLD.rank == RANKS - 1 else conclave.CancelledError, run)


def check_an_idle_leader():
    """The last rank is interrupted while it waits for a step that rank 0 does not take."""
    if RANKS == 1:
        return
    with engine_on(WORLD) as engine:
        if engine.rank == RANKS - 1:
            WHEN_ASKED.armed = True
            raises(KeyboardInterrupt, engine.follow)
        if engine.rank == 0:
            WORLD.recv(source=RANKS - 1)
            raises(conclave.CancelledError, engine.generate, PROMPT)
        elif engine.rank < RANKS - 1:
            raises(conclave.CancelledError, engine.follow)
        else:
            WORLD.send(None, dest=0)


def main():
    failures = 0
    for name, check in list(globals().items()):
        if not name.startswith("check_"):
            continue
        try:
            check()
        except BaseException:
            failures += 1
            print(f"rank {WORLD.rank}: {name}\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        WORLD.barrier()
    failures = WORLD.allreduce(failures)
    if WORLD.rank == 0 and failures == 0:
        print("all checks passed", flush=True)
    sys.exit(failures > 0)


main()
