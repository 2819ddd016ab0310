#!/usr/bin/env python3
"""package.py SOURCE_DIR BUILD_DIR CMAKE CC CXX LAUNCHER MPI_INCLUDES PART: the package that stage.py
has installed into BUILD_DIR/package-prefix, copied elsewhere. PART is one class below, in lower case."""
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

SOURCE, BUILD, CMAKE, CC, CXX, LAUNCHER, MPI_INCLUDES, PART = sys.argv[1:9]
HERE = os.path.join(SOURCE, "tests", "package")
MODEL = os.path.join(SOURCE, "tests", "fixtures", "qwen3moe-odd")
PROGRAMS = {"C": "program_c", "CXX": "program_cpp"}
STRICT = ["-pedantic", "-Wall", "-Wextra", "-Werror"]


def run(*command, env=None, folder=None):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=300, cwd=folder, env={**os.environ, **(env or {})})
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def read(*path):
    with open(os.path.join(*path)) as f:
        return f.read()


def configure(source, build, *definitions):
    flags = [f"-DCMAKE_C_COMPILER={CC}", f"-DCMAKE_CXX_COMPILER={CXX}", *definitions]
    if LAUNCHER:
        flags += [f"-DCMAKE_{language}_COMPILER_LAUNCHER={LAUNCHER}" for language in ("C", "CXX")]
    return run(CMAKE, "-S", source, "-B", build, "-G", "Ninja", "--no-warn-unused-cli", *flags)


def needed(program):
    return re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "-d", program))


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(scratch.cleanup)
        cls.scratch = scratch.name
        cls.prefix = os.path.join(cls.scratch, "prefix")
        shutil.copytree(os.path.join(BUILD, "package-prefix"), cls.prefix, symlinks=True)
        cls.library = os.path.dirname(glob.glob(cls.prefix + "/lib/**/libconclave.so", recursive=True)[0])
        cls.tokens = run(os.path.join(cls.prefix, "bin", "conclave"), "run", MODEL, "--prompt-ids", "5,6,7", "-n", "8",
                         "--ignore-eos", "--deterministic", "--activations", "f32").split()
        assert len(cls.tokens) == 8

    def runs(self, program, **env):
        self.assertEqual(run(program, MODEL, env=env).split(), self.tokens, program)


class Prefix(Case):
    """The files that are installed."""

    def public(self):
        return glob.glob(self.prefix + "/include/**/*.h*", recursive=True)

    def test_headers_stand_alone(self):
        """Those that programs include, in every way and language, and twice."""
        include = self.prefix + "/include"
        folders = [f"-I{include}{f}" for f in ("", "/conclave-sdk", "/conclave-sdk/runtime/api")]
        mpi = [f for f in MPI_INCLUDES.split(";") if f]
        folders += [argument for f in mpi for argument in ("-isystem", f)]
        both = [(CC, "c99"), (CC, "c17"), (CXX, "c++11"), (CXX, "c++20")]
        headers = {"conclave.h": both, "conclave/plugin.h": [(CXX, "c++20")]}
        if mpi:
            headers["conclave_mpi.h"] = both
        interface = glob.glob(include + "/conclave-sdk/runtime/api/*.hpp")
        self.assertGreaterEqual(len(interface), 3)
        headers.update({os.path.basename(header): [(CXX, "c++20")] for header in interface})
        for header, ways in headers.items():
            for compiler, standard in ways:
                file = os.path.join(self.scratch, "one" + (".c" if compiler == CC else ".cpp"))
                with open(file, "w") as f:
                    f.write(f"#include <{header}>\n#include <{header}>\nextern int unused;\n")
                more = ["-Wstrict-prototypes"] if compiler == CC else []
                run(compiler, "-std=" + standard, *STRICT, *more, "-Wno-unused-function", *folders, "-fsyntax-only", file)

    def test_nothing_names_the_tree_or_the_prefix(self):
        for folder, _, files in os.walk(self.library):
            for file in files:
                if file.endswith((".cmake", ".pc")):
                    text = read(folder, file)
                    for path in SOURCE, BUILD:
                        self.assertNotIn(os.path.realpath(path) + "/", text, file)
        for file in (self.library + "/libconclave.so", self.prefix + "/bin/conclave"):
            for path in re.findall(r"R(?:UN)?PATH.*\[(.*)\]", run("readelf", "-d", file)):
                self.assertNotIn(os.path.realpath(BUILD), path)
                self.assertNotIn("", path.split(":"))

    def test_soname(self):
        version = run("pkg-config", "--modversion", "conclave", env=self.pc()).strip()
        short = version.rsplit(".", 1)[0]
        self.assertIn(f"[libconclave.so.{short}]", run("readelf", "-d", self.library + "/libconclave.so"))
        self.assertEqual(os.path.basename(os.path.realpath(self.library + "/libconclave.so")), "libconclave.so." + version)

    def pc(self):
        return {"PKG_CONFIG_PATH": os.path.join(self.library, "pkgconfig")}

    def exported(self):
        lines = run("nm", "--dynamic", "--demangle", "--defined-only", self.library + "/libconclave.so").splitlines()
        return {line.split(" ", 2)[2].replace("@@", "@").split("@")[0] for line in lines if " A " not in line}

    def test_c_functions(self):
        """Every function of the C headers, and no other."""
        declared = set()
        for header in ("conclave.h", "conclave_mpi.h"):
            text = re.sub(r"/\*.*?\*/", "", read(self.prefix, "include", header), flags=re.S)
            found = re.findall(r"\bCONCLAVE_C_API\s[^;(]*?\b(conclave_\w+)\s*\(", text)
            self.assertEqual(len(found), len(re.findall(r"^\s*CONCLAVE_C_API", text, flags=re.M)), header)
            declared.update(found)
        self.assertGreater(len(declared), 30)
        self.assertEqual({name for name in self.exported() if "conclave::" not in name}, declared)

    def test_cpp_interface(self):
        """What headers mark with CONCLAVE_API, all of it and nothing else."""
        classes, functions = set(), set()
        for header in self.public():
            text = re.sub(r"//[^\n]*", "", read(header))
            classes.update(re.findall(r"^(?:class|struct) CONCLAVE_API (\w+)", text, flags=re.M))
            functions.update(re.findall(r"^CONCLAVE_API [^;{(]*?\b(\w+)\(", text, flags=re.M))
        self.assertIn("Engine", classes)
        self.assertIn("inspect", functions)
        seen = set()
        for name in self.exported():
            if "conclave::" not in name:
                continue
            match = re.match(r"(?:(?:vtable|typeinfo(?: name)?) for )?conclave::(\w+)", name)
            self.assertTrue(match and match[1] in classes | functions, name)
            seen.add(match[1])
        self.assertEqual(classes | functions, seen)

    def test_every_header_of_the_interface_is_there(self):
        for header in glob.glob(os.path.join(SOURCE, "runtime", "api", "conclave*.h*")):
            installed = [h for h in self.public() if os.path.basename(h) == os.path.basename(header)]
            self.assertEqual(len(installed), 1, header)


class Projects(Case):
    """Programs of somebody else's, by CMake and by pkg-config."""

    def project(self, name, languages, components, *definitions):
        build = os.path.join(self.scratch, name)
        copy = os.path.join(self.scratch, "consumer")
        shutil.copytree(os.path.join(HERE, "consumer"), copy, dirs_exist_ok=True)
        configure(copy, build, f"-DCMAKE_PREFIX_PATH={self.prefix}", f"-DLANGUAGES={languages}",
                  f"-DCOMPONENTS={components}", *definitions)
        run(CMAKE, "--build", build)
        for language in languages.split(";"):
            program = os.path.join(build, PROGRAMS[language])
            shared = [n for n in needed(program) if n.startswith("libconclave")]
            self.assertEqual(len(shared), 0 if components.startswith("static") else 1, program)
            self.runs(program)

    def test_shared(self):
        """Needs the package of nothing else, nor a C++ compiler for a C program."""
        without = [f"-DCMAKE_DISABLE_FIND_PACKAGE_{name}=ON"
                   for name in ("TBB", "spdlog", "nlohmann_json", "MPI", "PkgConfig", "Threads")]
        self.project("shared-c", "C", "", *without)
        self.project("shared-cpp", "CXX", "shared", *without)

    def test_static(self):
        self.project("static-c", "C", "static")
        self.project("static-cpp", "CXX", "static;plugin")
        self.project("static-both", "C;CXX", "static;shared")

    def refused(self, words, *definitions):
        with self.assertRaises(AssertionError) as caught:
            configure(os.path.join(HERE, "consumer"), os.path.join(self.scratch, "refused"),
                      f"-DCMAKE_PREFIX_PATH={self.prefix}", "-DLANGUAGES=CXX", *definitions)
        for word in words:
            self.assertIn(word, str(caught.exception))

    def test_what_is_missing_is_named(self):
        self.refused(["TBB"], "-DCOMPONENTS=static", "-DCMAKE_DISABLE_FIND_PACKAGE_TBB=ON")
        self.refused(["plugin"], "-DCOMPONENTS=plugin", "-DCMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON")
        self.refused(["nonsense"], "-DCOMPONENTS=nonsense")

    def test_pkg_config(self):
        env = {"PKG_CONFIG_PATH": os.path.join(self.library, "pkgconfig")}

        def flags(*arguments):
            return run("pkg-config", *arguments, "conclave", env=env).split()

        for kind in "shared", "static":
            libraries = flags("--libs")
            if kind == "static":
                libraries = ["-l:libconclave.a" if f == "-lconclave" else f for f in flags("--static", "--libs")]
            for command, file in (([CC, "-std=c99"], "program.c"), ([CXX, "-std=c++20"], "program.cpp")):
                program = os.path.join(self.scratch, f"{kind}-{file}-program")
                run(*command, *STRICT, *flags("--cflags"), os.path.join(HERE, "consumer", file), "-o", program, *libraries)
                self.assertEqual("libconclave.so" in " ".join(needed(program)), kind == "shared")
                self.runs(program, LD_LIBRARY_PATH=self.library if kind == "shared" else "")


class Subproject(Case):
    """Taken in by another project, by sources: configured, and that one's own files compiled."""

    def parent(self, name, languages, how, *definitions):
        build = os.path.join(self.scratch, name)
        configure(os.path.join(HERE, "parent"), build, f"-DLANGUAGES={languages}", f"-DHOW={how}", f"-DCONCLAVE={SOURCE}",
                  *definitions)
        report = json.loads(read(build, "report.json"))
        self.assertEqual(report["changed"], [])
        others = [t for t in report["targets"] if not t.startswith("conclave_")]
        self.assertEqual(others, [])
        commands = {os.path.basename(c["file"]): c["command"] for c in json.loads(read(build, "compile_commands.json"))}
        self.assertIn("-ffp-contract=off", commands["engine.cpp"])
        for language in languages.split(";"):
            file = "program.c" if language == "C" else "program.cpp"
            for flag in re.findall(r" (-[fWOgmD]\S+)", commands[file]):
                self.fail(f"{flag} reached {file}")
            run("ninja", f"CMakeFiles/{PROGRAMS[language]}.dir/{file}.o", folder=build)
        self.assertRegex(run("ctest", "-N", folder=build), "Total Tests: 0")
        return build, report

    def test_c_project(self):
        build, report = self.parent("c", "C", "subdirectory")
        self.assertEqual(report["library"], "conclave_shared")
        targets = run("ninja", "-t", "query", "all", folder=build)
        self.assertNotIn("libconclave.a", targets)
        run(CMAKE, "--install", build, "--prefix", os.path.join(self.scratch, "nothing"))
        self.assertFalse(os.path.exists(os.path.join(self.scratch, "nothing")))

    def test_static(self):
        _, report = self.parent("cpp", "CXX", "subdirectory")
        self.assertEqual(report["library"], "conclave_static")
        _, report = self.parent("fetched", "C;CXX", "fetch", "-DBUILD_SHARED_LIBS=OFF")
        self.assertEqual(report["library"], "conclave_static")

    def test_shared_and_installed_elsewhere(self):
        build, report = self.parent("installed", "C;CXX", "fetch", "-DBUILD_SHARED_LIBS=ON", "-DCONCLAVE_INSTALL=ON",
                                    "-DCMAKE_INSTALL_LIBDIR=lib/there", "-DCMAKE_INSTALL_INCLUDEDIR=include/here")
        self.assertEqual(report["library"], "conclave_shared")
        pc = glob.glob(build + "/**/package/conclave.pc", recursive=True)[0]
        text = read(pc)
        self.assertIn("prefix=${pcfiledir}/../../..\n", text)
        self.assertIn("libdir=${prefix}/lib/there\n", text)
        self.assertIn("includedir=${prefix}/include/here\n", text)
        rules = read(os.path.dirname(os.path.dirname(pc)), "cmake_install.cmake")
        for place in re.findall(r'DESTINATION "\$\{CMAKE_INSTALL_PREFIX\}/([^"]*)"', rules):
            self.assertRegex(place, "^(lib/there|include/here)(/|$)")


@unittest.skipUnless(shutil.which("dpkg-deb") and shutil.which("dpkg-shlibdeps"), "no Debian tools")
class Deb(Case):
    def test_package(self):
        folder = os.path.join(self.scratch, "deb")
        run(os.path.join(os.path.dirname(CMAKE), "cpack"), "-G", "DEB", "--config", os.path.join(BUILD, "CPackConfig.cmake"), "-B", folder,
            folder=self.scratch)
        packages = {os.path.basename(p).split("_")[0]: p for p in glob.glob(folder + "/*.deb")}
        self.assertEqual(sorted(packages), ["conclave", "conclave-dev"])

        def field(name, package="conclave"):
            return run("dpkg-deb", "-f", packages[package], name).strip()

        for library in "libc6", "libstdc++6", "libtbb12", "libpcre2-8-0", "libutf8proc2":
            self.assertRegex(field("Depends"), rf"(^| ){re.escape(library)}( |,|$)")
        self.assertNotIn("-dev", field("Depends"))
        self.assertEqual(field("Depends", "conclave-dev"), f"conclave (= {field('Version')})")
        for package in packages:
            for line in run("dpkg-deb", "-c", packages[package]).splitlines():
                mode, owner, path = line.split()[0], line.split()[1], line.split()[5]
                self.assertEqual(owner, "root/root")
                self.assertRegex(path, r"^\./usr/")
                if mode[0] != "l":
                    self.assertNotIn("w", mode[4:], line)
                developing = re.search(r"\.(h|hpp|a|so|cmake|pc)$", path) and "/plugins/" not in path
                if mode[0] != "d":
                    self.assertEqual(package == "conclave-dev", bool(developing), path)
        root = os.path.join(self.scratch, "root")
        for package in packages.values():
            run("dpkg-deb", "-x", package, root)
        library = os.path.dirname(glob.glob(root + "/usr/lib/**/libconclave.so", recursive=True)[0])
        env = {"PKG_CONFIG_PATH": library + "/pkgconfig"}
        flags = run("pkg-config", "--cflags", "--libs", "conclave", env=env).split()
        program = os.path.join(self.scratch, "program")
        run(CC, "-std=c99", *STRICT, os.path.join(HERE, "consumer", "program.c"), "-o", program, *flags)
        self.runs(program, LD_LIBRARY_PATH=library)
        self.assertIn("bitsandbytes", run(root + "/usr/bin/conclave", "plugins"))


def main():
    for name in list(os.environ):
        if name.startswith(("CONCLAVE_", "CMAKE_", "PKG_CONFIG")) or name in ("CPATH", "CPLUS_INCLUDE_PATH", "LD_LIBRARY_PATH"):
            del os.environ[name]
    classes = {c.__name__.lower(): c for c in (Prefix, Projects, Subproject, Deb)}
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(classes[PART])
    sys.exit(not unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful())


if __name__ == "__main__":
    main()
