"""no_print.py ROOT: the library neither prints nor ends the process."""
import re
import sys

from common import CPP, code_only, files, finish, read, root_argument

LIBRARY = ("runtime/", "sharding/", "moe/", "quant/")
# A name that is not a member (x.exit(), p->abort()) nor of another scope than std.
NAME = r"(?<![\w.])(?<!->)(?:(?<![\w>])::|std::)?"
FORBIDDEN = [
    (re.compile(r"\b(?:std::)?(?:v?f|v|w|vw|vfw|d|vd)?printf\s*\("), "prints"),
    (re.compile(NAME + r"(?<!::)(?:puts|fputs|putchar|putc|fputc|perror|psignal)\s*\("), "prints"),
    (re.compile(r"\bstd::(?:puts|fputs|putchar|putc|fputc|perror)\s*\("), "prints"),
    (re.compile(r"\b(?:std::)?w?(?:cout|cerr|clog)\b"), "prints"),
    (re.compile(r"\b(?:stdout|stderr|STDOUT_FILENO|STDERR_FILENO)\b"), "prints"),
    (re.compile(r"\bfmt::print\b"), "prints"),
    (re.compile(r"\bspdlog::(?:trace|debug|info|warn|error|critical|log|default_logger)\b"),
     "prints through the process's logger"),
    (re.compile(NAME + r"(?:abort|_?exit|_Exit|quick_exit|terminate)\s*\("), "ends the process"),
    (re.compile(r"\bMPI_Abort\b"), "ends the job"),
    (re.compile(r"(?<!\w)assert\s*\("), "ends the process"),
    (re.compile(r"__builtin_trap\b"), "ends the process"),
]
# Ends child processes, which nothing else may.
CHILDREN = "runtime/engine/plugins/child_process.cpp"
# A function of ours may bear such a name: void abort(...), Comm::terminate(...).
DECLARATION = re.compile(r"\b(?:void|bool|int|auto|virtual)\s+(?:\w+::)*$")


def main():
    root = root_argument()
    problems, checked = [], 0
    for path in files(root, CPP):
        if not path.startswith(LIBRARY):
            continue
        checked += 1
        for number, line in enumerate(code_only(read(root, path)).split("\n"), 1):
            for pattern, what in FORBIDDEN:
                for match in pattern.finditer(line):
                    if path == CHILDREN and match.group(0).startswith("_exit"):
                        continue
                    if not DECLARATION.search(line[:match.start()]):
                        problems.append(f"{path}:{number}: {match.group(0).strip()}: {what}")
    return finish(problems, checked, "files")


sys.exit(main())
