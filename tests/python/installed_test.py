"""installed_test.py PREFIX: the library as it is installed, found beside nothing but its variable."""
import glob
import os
import subprocess
import sys

prefix = sys.argv[1]
libraries = glob.glob(os.path.join(prefix, "**", "libconclave.so"), recursive=True)
assert len(libraries) == 1, f"{prefix}: {libraries}"
program = """
import conclave, sys
with conclave.Engine(sys.argv[1], threads=1) as engine:
    print(engine.size, len(engine.generate("ROMEO:", max_tokens=5, ignore_eos=True).tokens))
"""
model = os.path.join(os.environ["CONCLAVE_SOURCE"], "launch", "examples", "shakespeare-4bit")
for value in libraries[0], os.path.dirname(libraries[0]):
    out = subprocess.run([sys.executable, "-c", program, model], capture_output=True, text=True, check=True,
                         env={**os.environ, "CONCLAVE_LIBRARY": value})
    assert (out.stdout, out.stderr) == ("1 5\n", ""), out
print("ran with", libraries[0])
