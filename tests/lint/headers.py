"""headers.py ROOT FLAGS [FOLDER]: every header compiles alone.

FLAGS is a file, one item a line: the compiler (with its launcher, such as ccache), then its
arguments. What is written goes to FOLDER; one that stays lets ccache remember."""
import os
import platform
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

from common import files, finish, root_argument

# Vector code is compiled with the flags of its instruction set, which its file name ends in.
ISA_FLAGS = {
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": ["-mavx2", "-mfma", "-mf16c", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"],
}
ISA_FLAGS["avx512vnni"] = ISA_FLAGS["avx512"] + ["-mavx512vnni"]
ISA_FLAGS["avx512bf16"] = ISA_FLAGS["avx512"] + ["-mavx512bf16"]


def isa_flags(name):
    """None if the header is for another processor than this one."""
    x86 = platform.machine() in ("x86_64", "AMD64")
    base = os.path.basename(name)
    if (base.startswith("x86_") and not x86) or (base.startswith("arm_") and x86):
        return None
    if not x86:
        return []
    isa = re.search(r"avx2|avx512[a-z0-9]*", base)
    if isa is None:  # shared by several instruction sets
        return ISA_FLAGS["avx512bf16"] if base.startswith("x86_") else []
    return ISA_FLAGS.get(isa.group(0), [])


def compile_alone(root, command, name, scratch):
    flags = isa_flags(name)
    if flags is None:
        return None
    # Included twice, so that a missing guard shows too.
    unit = os.path.join(scratch, name.replace("/", "_") + ".cpp")
    with open(unit, "w") as f:
        f.write(f'#include "{name}"\n#include "{name}"\n')
    # Public headers name each other as programs do: <conclave.h>.
    folders = ["-I", root, "-I", os.path.join(root, "runtime", "api")]
    run = subprocess.run(command + flags + folders + ["-c", unit, "-o", unit + ".o"],
                         capture_output=True, text=True)
    return None if run.returncode == 0 else f"{name}: does not compile alone:\n{run.stderr[:1500]}"


def main():
    root = root_argument()
    with open(sys.argv[2]) as f:
        command = [line.strip() for line in f if line.strip()]
    headers = files(root, (".h", ".hpp"))
    with tempfile.TemporaryDirectory() as passing, ThreadPoolExecutor(2) as pool:
        scratch = sys.argv[3] if len(sys.argv) > 3 else passing
        os.makedirs(scratch, exist_ok=True)
        results = pool.map(lambda h: compile_alone(root, command, h, scratch), headers)
        problems = [r for r in results if r]
    return finish(problems, len(headers), "headers")


sys.exit(main())
