"""What the lint scripts share: the files of a tree, C++ without its comments, and how to report."""
import os
import subprocess
import sys

CPP = (".h", ".hpp", ".cpp", ".inc")
SKIPPED = 77  # ctest's SKIP_RETURN_CODE


def git_files(root):
    """Tracked files of the repository whose top is root; None where there is none."""
    def run(*arguments):
        return subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True)
    try:
        top = run("rev-parse", "--show-toplevel")
        if top.returncode != 0 or os.path.realpath(top.stdout.strip()) != os.path.realpath(root):
            return None
        return run("ls-files", "-z").stdout.split("\0")
    except OSError:
        return None


def walked_files(root):
    for folder, folders, names in os.walk(root):
        inside = os.path.relpath(folder, root)
        folders[:] = [f for f in folders
                      if not f.startswith(".") and f != "__pycache__"
                      and not (inside == "." and f.startswith("build"))]
        for name in names:
            yield os.path.normpath(os.path.join(inside, name))


def files(root, suffixes=None):
    """Tracked files (all files of a tree without git), relative to root, sorted."""
    names = git_files(root)
    if names is None:
        names = walked_files(root)
    return sorted(n for n in names if n and os.path.isfile(os.path.join(root, n))
                  and (suffixes is None or n.endswith(suffixes)))


def read(root, name):
    with open(os.path.join(root, name), encoding="utf-8", errors="replace") as f:
        return f.read()


def is_binary(root, name):
    with open(os.path.join(root, name), "rb") as f:
        return b"\0" in f.read(8192)


def code_only(text, keep_strings=False):
    """C++ with comments (and contents of strings) replaced by blanks; lines stay where they are."""
    out = []
    i, n = 0, len(text)

    def blank(end):
        nonlocal i
        out.extend(c if c == "\n" else " " for c in text[i:end])
        i = end

    def literal(end):
        nonlocal i
        if keep_strings:
            out.append(text[i:end])
            i = end
        else:
            out.append(text[i])
            i += 1
            blank(max(i, end - 1))
            out.append(text[i:end])
            i = end

    def quoted_end(quote):
        j = i + 1
        while j < n and text[j] != quote and text[j] != "\n":
            j += 2 if text[j] == "\\" else 1
        return min(j + 1, n)

    while i < n:
        if text.startswith("//", i):
            end = text.find("\n", i)
            blank(n if end < 0 else end)
        elif text.startswith("/*", i):
            end = text.find("*/", i + 2)
            blank(n if end < 0 else end + 2)
        elif text.startswith('R"', i) and not (i and (text[i - 1].isalnum() or text[i - 1] == "_")
                                               and text[i - 1] not in "uUL8"):
            out.append("R")
            i += 1
            bracket = text.find("(", i)
            closing = ")" + text[i + 1:bracket] + '"'
            end = text.find(closing, bracket)
            literal(n if end < 0 else end + len(closing))
        elif text[i] == '"':
            literal(quoted_end('"'))
        elif text[i] == "'" and not (i and text[i - 1].isalnum()):  # not 1'000
            literal(quoted_end("'"))
        else:
            out.append(text[i])
            i += 1
    return "".join(out)


def finish(problems, checked, what):
    """Prints the problems; the exit code of the script. A lint that saw nothing has failed."""
    for problem in problems:
        print(problem)
    if not problems and checked == 0:
        print("nothing was checked")
        return 1
    print(f"{len(problems)} problems in {checked} {what}")
    return 1 if problems else 0


def root_argument():
    if len(sys.argv) < 2:
        sys.exit(f"usage: {sys.argv[0]} ROOT ...")
    return sys.argv[1]
