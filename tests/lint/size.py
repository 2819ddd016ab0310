"""size.py ROOT: short files, nothing left undone, and no path of somebody's machine."""
import os
import re
import sys

from common import CPP, files, finish, is_binary, read, root_argument

MOST_LINES = 600
SOURCE = CPP + (".py", ".sh", ".cmake", "CMakeLists.txt", ".yml", ".json.in")
UNDONE = re.compile(r"\b(TO" r"DO|FIX" r"ME)\b")
MACHINE = re.compile(r"(?<![\w.}$)-])/(?:work|home|Users)/")


def is_prose_or_source(root, path):
    """Data (fixtures, example models) may hold anything; scripts need no suffix."""
    if path.endswith(SOURCE) or path.endswith(".md"):
        return True
    return "." not in os.path.basename(path) and not is_binary(root, path)


def main():
    root = root_argument()
    problems, checked = [], 0
    for path in files(root):
        if path.startswith("tests/fixtures/") or not is_prose_or_source(root, path):
            continue
        checked += 1
        lines = read(root, path).splitlines()
        if len(lines) > MOST_LINES and not path.endswith(".md") and path != "LICENSE":
            problems.append(f"{path}: {len(lines)} lines, at most {MOST_LINES} are allowed")
        for number, line in enumerate(lines, 1):
            for pattern, what in ((UNDONE, "left undone"), (MACHINE, "path of one machine")):
                match = pattern.search(line)
                if match:
                    problems.append(f"{path}:{number}: {match.group(0)}: {what}")
    return finish(problems, checked, "files")


sys.exit(main())
