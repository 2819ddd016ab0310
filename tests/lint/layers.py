"""layers.py ROOT: an include may only go down the floors; MPI and TBB stay in their folders."""
import re
import sys

from common import CPP, code_only, files, finish, read, root_argument

# Each floor, and the floors directly below it.
BELOW = {
    "runtime/base": [],
    "runtime/comm": ["runtime/base"],
    "runtime/exec": ["runtime/base"],
    "quant": ["runtime/base"],
    "sharding": ["quant", "runtime/comm", "runtime/exec"],
    "moe": ["sharding"],
    "runtime/sdk": ["sharding"],
    "runtime/engine": ["moe", "runtime/sdk"],
    "runtime/api": ["runtime/engine"],
}
# The programs see the public interface, as any embedding program would.
LAUNCH_MAY = re.compile(r"launch/|runtime/api/|runtime/base/(error|options)\.h$")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^">]+)[">]', re.M)
TBB = re.compile(r"(oneapi/)?tbb/|tbb\.h$")


def floor_of(path):
    if path.startswith("launch/"):
        return "launch"
    return next((f for f in BELOW if path.startswith(f + "/")), None)


def reachable(floor):
    seen = {floor}
    for below in BELOW[floor]:
        seen |= reachable(below)
    return seen


def problem_with(path, floor, style, included):
    if included == "mpi.h":
        if (floor == "runtime/comm" or path == "runtime/api/conclave_mpi.h"
                or path.startswith("launch/examples/")):
            return None
        return "only runtime/comm and runtime/api/conclave_mpi.h may include mpi.h"
    if TBB.match(included):
        return None if floor == "runtime/exec" else "only runtime/exec may include TBB"
    if style == "<":
        return None
    if path.startswith("launch/examples/") and "/" not in included:
        return None  # a project of its own: what lies beside the file
    if floor == "launch":
        if LAUNCH_MAY.match(included):
            return None
        return "launch may include only launch, runtime/api and runtime/base/{error,options}.h"
    target = floor_of(included)
    if target is None:
        return "a quoted include starts at the root of the tree, with a floor's name"
    if target not in reachable(floor):
        return f"{floor} may not include {target}"
    return None


def main():
    root = root_argument()
    problems, checked = [], 0
    for path in files(root, CPP):
        floor = floor_of(path)
        if floor is None:
            if not path.startswith("tests/"):
                problems.append(f"{path}: belongs to no floor")
            continue
        checked += 1
        text = code_only(read(root, path), keep_strings=True)
        for match in INCLUDE.finditer(text):
            problem = problem_with(path, floor, match.group(1), match.group(2))
            if problem:
                line = text.count("\n", 0, match.start(1)) + 1
                problems.append(f"{path}:{line}: {match.group(2)}: {problem}")
    return finish(problems, checked, "files")


sys.exit(main())
