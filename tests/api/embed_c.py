"""embed_c.py CONCLAVE SOURCE EMBED_C: the example, built as a project of its own against the
installed package, gives the command's text at 1, 2 and 3 ranks, and a status where there is no
model."""
import subprocess
import sys

CONCLAVE, SOURCE, EMBED = sys.argv[1:4]
MODEL = SOURCE + "/launch/examples/shakespeare"
PROMPT = "O Romeo, Romeo! "


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def check(condition, what, result):
    if not condition:
        sys.exit(f"{what}\n{result.args}: {result.returncode}\n{result.stdout}\n{result.stderr}")


expected = run(CONCLAVE, "run", MODEL, "--prompt", PROMPT, "-n", "40", "--temperature", "0")
check(expected.returncode == 0 and expected.stdout.strip(), "the command failed", expected)
for ranks in ("1", "2", "3"):
    got = run(EMBED, MODEL, PROMPT, "40", ranks)
    check(got.returncode == 0, "the example failed", got)
    check(got.stdout == expected.stdout, f"other text than {expected.stdout!r}", got)
    check('"layout"' in got.stderr and "generated 40 tokens" in got.stderr, "no figures", got)
lost = run(EMBED, "/nowhere", PROMPT, "4", "2")
check(lost.returncode == 1 and not lost.stdout and "CONCLAVE_ERROR_MISSING_FILE" in lost.stderr,
      "no status", lost)
