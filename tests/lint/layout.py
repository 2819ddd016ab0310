"""layout.py ROOT: the top level is fixed."""
import sys

from common import files, finish, root_argument

FOLDERS = {"runtime", "sharding", "moe", "quant", "tests", "launch"}
FILES = {"CMakeLists.txt", "CMakePresets.json", "README.md", "LICENSE"}


def main():
    found = files(root_argument())
    top = {(name.split("/")[0], "/" in name) for name in found}
    problems = [f"{name}: not a {'folder' if folder else 'file'} of the top level"
                for name, folder in sorted(top)
                if not name.startswith(".") and name not in (FOLDERS if folder else FILES)]
    return finish(problems, len(found), "files")


sys.exit(main())
