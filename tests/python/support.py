"""Where things are, and how to run them."""
import os
import subprocess
import sys

SOURCE = os.environ["CONCLAVE_SOURCE"]
COMMAND = os.environ["CONCLAVE_COMMAND"]
MPIEXEC = os.environ["CONCLAVE_MPIEXEC"]
MODEL = os.path.join(SOURCE, "launch", "examples", "shakespeare")
PROMPT = "ROMEO:"

sys.path.insert(0, os.path.join(SOURCE, "tests", "launch"))


def run(*command, env=None, timeout=120):
    """(exit code, stdout, stderr)"""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=timeout, env={**os.environ, **(env or {})})
    return done.returncode, done.stdout, done.stderr


def python(*arguments, **options):
    return run(sys.executable, *arguments, **options)


def mpirun(ranks, *arguments, **options):
    return run(MPIEXEC, "-n", str(ranks), sys.executable, *arguments, **options)


def command_text(tokens, *flags):
    """The text of the conclave command, greedy and deterministic."""
    code, out, err = run(COMMAND, "run", MODEL, "-p", PROMPT, "-n", str(tokens), "--deterministic", *flags)
    assert code == 0, err
    return out[:-1]  # the command ends it with a newline


def reference():
    """Of transformers: {"input_ids": [2, 64], "logits": [2, 64, V], "greedy_prompt", "greedy_ids"}."""
    import checkpoint
    import numpy

    tensors = checkpoint.read_tensors(os.path.join(MODEL, "expected.safetensors"))
    types = {"I64": numpy.int64, "F32": numpy.float32}
    return {name: numpy.frombuffer(data, types[dtype]).reshape(shape)
            for name, (dtype, shape, data) in tensors.items()}
