#!/usr/bin/env python3
"""stage.py SOURCE_DIR BUILD_DIR CMAKE CC CXX LAUNCHER: installs the build into BUILD_DIR/package-prefix
and builds every example that is a CMake project against that, as a project of somebody else's: into
BUILD_DIR/package-examples/FOLDER."""
import glob
import os
import shutil
import subprocess
import sys

SOURCE, BUILD, CMAKE, CC, CXX, LAUNCHER = sys.argv[1:7]
PREFIX, EXAMPLES, COPIES = (os.path.join(BUILD, "package-" + name) for name in ("prefix", "examples", "sources"))
WARNINGS = "-Wall -Wextra -Werror"


def run(*command, **more):
    print("+", *command, flush=True)
    return subprocess.run(command, stdin=subprocess.DEVNULL, timeout=500, **more).returncode == 0


def install():
    first = PREFIX + "-first"
    for folder in (first, PREFIX, EXAMPLES, COPIES):
        shutil.rmtree(folder, ignore_errors=True)
    if not run(CMAKE, "--install", BUILD, "--prefix", first, stdout=subprocess.DEVNULL):
        sys.exit("cmake --install failed: is everything built?")
    os.rename(first, PREFIX)  # nothing that is installed may hold its own path


def build(name):
    """Out of a copy, so that nothing of the tree is in reach."""
    copy, folder = os.path.join(COPIES, name), os.path.join(EXAMPLES, name)
    shutil.copytree(os.path.join(SOURCE, "launch", "examples", name), copy)
    flags = ["-DCMAKE_BUILD_TYPE=Release", f"-DCMAKE_PREFIX_PATH={PREFIX}", f"-DCMAKE_C_COMPILER={CC}",
             f"-DCMAKE_CXX_COMPILER={CXX}", f"-DCMAKE_C_FLAGS={WARNINGS}", f"-DCMAKE_CXX_FLAGS={WARNINGS}"]
    if LAUNCHER:
        flags += [f"-DCMAKE_{language}_COMPILER_LAUNCHER={LAUNCHER}" for language in ("C", "CXX")]
    return (run(CMAKE, "-S", copy, "-B", folder, "-G", "Ninja", "--no-warn-unused-cli", *flags)
            and run(CMAKE, "--build", folder))


def main():
    for name in list(os.environ):
        if name.startswith(("CONCLAVE_", "CMAKE_")) or name in ("CPATH", "CPLUS_INCLUDE_PATH", "LD_LIBRARY_PATH"):
            del os.environ[name]
    install()
    lists = glob.glob(os.path.join(SOURCE, "launch", "examples", "*", "CMakeLists.txt"))
    names = sorted(os.path.basename(os.path.dirname(path)) for path in lists)
    failed = [name for name in names if not build(name)]
    if failed or not names:
        sys.exit(f"examples that do not build: {failed}")


if __name__ == "__main__":
    main()
