"""selftest.py RULE FLAGS: the rule passes a good tree, and finds each planted fault.

The trees are written to a temporary folder, so that no rule ever meets them in the real one."""
import os
import subprocess
import sys
import tempfile

from common import SKIPPED

# A small tree without faults. Forbidden words are put together here: this file is linted too.
GOOD = {
    "CMakeLists.txt": "project(x)\n",
    ".clang-format": "BasedOnStyle: Google\n",
    "runtime/base/a.h": "#pragma once\nint a();\n",
    "runtime/comm/mpi.cpp": "#include <mpi.h>\n\n#include \"runtime/base/a.h\"\n",
    "runtime/exec/arena.cpp": "#include <tbb/task_arena.h>\n",
    "quant/q.h": "#pragma once\n#include <vector>\n\n#include \"runtime/base/a.h\"\n"
                 "std::vector<int> q();\n",
    "moe/m.cpp": "#include \"quant/q.h\"\n#include \"runtime/comm/c.h\"\n",
    "launch/main.cpp": "#include <cstdio>\n\n#include \"runtime/api/x.h\"\n"
                       "#include \"runtime/base/error.h\"\n\n"
                       "int main() { printf(\"hello\"); }\n",
    "launch/examples/e.cpp": "#include <mpi.h>\n",
    "tests/t.cpp": "#include \"moe/m.h\"\n",
    # What only looks like a fault.
    "sharding/s.cpp": "// printf(1); abort(); std::cout\n/* exit(1);\n   assert(0) */\n"
                      "const char* s = \"printf(\\\"x\\\"); // abort()\";\n"
                      "const char* r = R\"x(exit(1) \" std::cerr)x\";\n"
                      "const int n = 1'000;\nchar q = '\"';\n"
                      "static_assert(n > 0);\nvoid f(char* b) { snprintf(b, 1, \"\"); }\n"
                      "struct P {\n  void abort(int);\n};\n"
                      "void g(P* p, P& r2) {\n  p->abort(1);\n  r2.abort(2);\n}\n",
}
TO_DO = "TO" + "DO"
HOME = "/" + "home/me/x"

BAD = {
    "layers": [
        {"quant/bad.h": "#pragma once\n#include \"moe/m.h\"\n"},
        {"runtime/base/bad.h": "#include \"quant/q.h\"\n"},
        {"quant/bad.h": "#include \"runtime/exec/arenas.h\"\n"},
        {"runtime/comm/bad.h": "#  include \"runtime/exec/arenas.h\"\n"},
        {"runtime/engine/bad.cpp": "#include <mpi.h>\n"},
        {"launch/bad.cpp": "#include \"mpi.h\"\n"},
        {"launch/bad.cpp": "#include \"runtime/engine/engine.h\"\n"},
        {"launch/bad.cpp": "#include \"runtime/base/json.h\"\n"},
        {"quant/bad.cpp": "#include <oneapi/tbb/parallel_for.h>\n"},
        {"quant/bad.cpp": "#include \"q.h\"\n"},
        {"runtime/engine/bad.cpp": "#include \"runtime/api/x.h\"\n"},
        {"moe/bad.cpp": "#include \"tests/t.h\"\n"},
        {"other/bad.h": "int x;\n"},
    ],
    "no_print": [
        {"quant/bad.cpp": f"void f() {{ {call}; }}\n"}
        for call in ("printf(\"x\")", "std::printf(\"x\")", "fprintf(f, \"x\")", "puts(\"x\")",
                     "std::cout << 1", "std::cerr << 1", "cout << 1", "abort()", "std::abort()",
                     "::abort()", "exit(1)", "std::exit (1)", "_exit(1)", "std::terminate()",
                     "assert(x)", "MPI_Abort(c, 1)", "fputs(\"x\", out)", "write(STDERR_FILENO)",
                     "spdlog::info(\"x\")", "return std::puts(\"x\")", "fmt::print(\"x\")")
    ] + [{"runtime/base/bad.h": "/* */ inline void f() { exit(1); }\n"},
         {"moe/bad.cpp": "const char* s = \"\\\\\"; void f() { abort(); }\n"},
         {"sharding/bad.cpp": "auto s = R\"(a\")\"; void f() { abort(); }\n"}],
    "size": [
        {"moe/bad.cpp": "int x;\n" * 601},
        {"launch/bad": "#!/bin/sh\n" + "true\n" * 601},
        {"moe/bad.cpp": f"// {TO_DO}: later\n"},
        {"README.md": "FIX" + "ME\n"},
        {"tests/bad.py": f"open('{HOME}')\n"},
        {"launch/bad": f"#!/bin/sh\ncd {HOME}\n"},
        {"CMakeLists.txt": "include(/" + "work/x.cmake)\n"},
    ],
    "layout": [{"docs/x.md": "x\n"}, {"notes.txt": "x\n"}, {"Makefile": "all:\n"},
               {"cmake/x.cmake": "x\n"}, {"launcher": "x\n"}],
    "format": [{"moe/bad.cpp": "int  x;\n"}, {"moe/bad.h": "int f( int a );\n"}],
    "headers": [
        {"moe/bad.h": "#pragma once\nstd::string s();\n"},
        {"moe/bad.hpp": "int twice = 1;\n"},
        {"moe/x86_avx2.h": "#pragma once\n#include <no_such_header.h>\n"},
    ],
}


def write(root, tree):
    for name, text in tree.items():
        os.makedirs(os.path.dirname(os.path.join(root, name)) or root, exist_ok=True)
        with open(os.path.join(root, name), "w") as f:
            f.write(text)


def run(rule, flags, tree):
    here = os.path.dirname(os.path.abspath(__file__))
    with tempfile.TemporaryDirectory() as root:
        write(root, tree)
        done = subprocess.run([sys.executable, "-B", os.path.join(here, rule + ".py"), root, flags],
                              capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr


def main():
    rule, flags = sys.argv[1:3]
    code, output = run(rule, flags, GOOD)
    if code == SKIPPED:
        print(output)
        return SKIPPED
    failures = [] if code == 0 else [f"the good tree fails:\n{output}"]
    for fault in BAD[rule]:
        code, output = run(rule, flags, {**GOOD, **fault})
        name = list(fault)[0]
        if code != 1 or (name.split("/")[0] if rule == "layout" else name) not in output:
            failures.append(f"exit code {code} for {fault}:\n{output[:1000]}")
    code, output = run(rule, flags, {})
    if code != 1:
        failures.append("an empty tree passes")
    print("\n".join(failures) or f"found all {len(BAD[rule])} faults")
    return 1 if failures else 0


sys.exit(main())
