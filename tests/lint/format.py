"""format.py ROOT: C++ looks as .clang-format says, in the words of clang-format 14."""
import os
import shutil
import subprocess
import sys

from common import CPP, SKIPPED, files, finish, root_argument


def clang_format():
    """Other versions format a few lines differently."""
    for name in ("clang-format-14", "clang-format"):
        path = shutil.which(name)
        if path and " 14." in subprocess.run([path, "--version"], capture_output=True,
                                             text=True).stdout:
            return path
    return None


def main():
    root = root_argument()
    tool = clang_format()
    if tool is None:
        print("skipped: clang-format 14 is not installed")
        return SKIPPED
    checked = [f for f in files(root, CPP) if not f.endswith(".inc")]
    problems = []
    for name in checked:
        run = subprocess.run([tool, "--style=file", "--dry-run", "-Werror", os.path.join(root, name)],
                             capture_output=True, text=True)
        if run.returncode != 0:
            problems.append(f"{name}: not formatted:\n{run.stderr[:400]}")
    return finish(problems, len(checked), "files")


sys.exit(main())
