#!/usr/bin/env python3
"""launching.py SOURCE_DIR BUILD_DIR CMAKE: the files of launch/ that start Conclave elsewhere name what
exists, and as far as this machine goes, do what they say."""
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest

try:
    import yaml
except ImportError:
    yaml = None

SOURCE, BUILD, CMAKE = sys.argv[1:4]
PREFIX = os.path.join(BUILD, "package-prefix")
CONCLAVE = os.path.join(PREFIX, "bin", "conclave")
MODEL = os.path.join(SOURCE, "launch", "examples", "shakespeare-4bit")


def read(name):
    with open(os.path.join(SOURCE, "launch", name)) as f:
        return f.read()


def run(command, env=None, code=0):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=200, env={**os.environ, **(env or {})})
    assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Case(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.scratch = scratch.name

    def check_flags(self, words):
        """`words` has mpirun's or srun's words, `conclave COMMAND` and its options."""
        words = words[words.index("conclave"):]
        known = run([CONCLAVE, words[1], "--help"])
        options = [w for w in words[2:] if re.match(r"--?[a-zA-Z]", w)]
        self.assertTrue(options, words)
        for option in options:
            self.assertRegex(known, rf"(^|[\s,]){re.escape(option)}[\s,]", words)

    def check_mpirun(self, words):
        known = run(["mpirun", "--help", "all"])
        for word in words[:words.index("conclave")]:
            if word.startswith("-"):
                self.assertRegex(known, rf"(^|[\s|]){re.escape(word.replace('--', '-', 1))}[\s|]|{re.escape(word)}[\s|]", words)


def commands(text):
    """Commands of comments and scripts, continued lines joined, that run conclave under mpirun."""
    text = re.sub(r"\\\n#?\s*", "", re.sub(r"^# ?", "", text, flags=re.M))
    return [shlex.split(line.strip(), comments=True) for line in text.splitlines()
            if re.match(r"\s*(mpirun|srun) .*\bconclave\b", line)]


class Launching(Case):
    def test_hostfile(self):
        text = read("hostfile")
        for line in text.splitlines():
            self.assertRegex(line, r"^(#.*|[a-z][a-z0-9.-]* slots=\d+)?$")
        self.assertEqual(len(commands(text)), 1)
        for words in commands(text):
            self.check_mpirun(words)
            self.check_flags(words)
            self.assertTrue(os.path.exists(os.path.join(SOURCE, words[words.index("--hostfile") + 1])))

    def test_hostfile_is_read(self):
        """By mpirun, with this machine for the ones it names."""
        hosts = os.path.join(self.scratch, "hosts")
        with open(hosts, "w") as f:
            f.write(re.sub(r"^node1\b", "localhost", re.sub(r"^node2.*", "", read("hostfile"), flags=re.M), flags=re.M))
        self.assertEqual(run(["mpirun", "--hostfile", hosts, "--map-by", "ppr:2:node", "echo", "x"]), "x\nx\n")

    def test_sbatch(self):
        script = os.path.join(SOURCE, "launch", "slurm", "conclave.sbatch")
        run(["bash", "-n", script])
        self.assertEqual(len(commands(read("slurm/conclave.sbatch"))), 2)
        for words in commands(read("slurm/conclave.sbatch")):
            self.check_flags(words)
        for line in read("slurm/conclave.sbatch").splitlines():
            self.assertRegex(line, r"^(#SBATCH --[a-z-]+(=\S+)?|(?!#SBATCH).*)$")
        job = {"PATH": os.path.dirname(CONCLAVE) + ":" + os.environ["PATH"], "SLURM_NTASKS_PER_NODE": "2",
               "SLURM_CPUS_PER_TASK": "1", "CONCLAVE_DETERMINISTIC": "1"}
        out = run(["bash", script, MODEL, "O Romeo, Romeo!"], env=job)
        alone = run([CONCLAVE, "run", MODEL, "--prompt", "O Romeo, Romeo!", "--max-tokens", "256", "--deterministic"])
        self.assertEqual(out, alone)
        run(["bash", script, MODEL], code=1)
        run(["bash", script, "/no/model", "x"], code=66, env=job)

    @unittest.skipUnless(yaml, "no python3-yaml")
    def test_mpijob(self):
        documents = list(yaml.safe_load_all(read("kubernetes/mpijob.yaml")))
        self.assertEqual([(d["apiVersion"], d["kind"]) for d in documents], [("kubeflow.org/v2beta1", "MPIJob")])
        spec = documents[0]["spec"]
        launcher, worker = (spec["mpiReplicaSpecs"][role] for role in ("Launcher", "Worker"))
        pods = [role["template"]["spec"] for role in (launcher, worker)]
        launched, worked = (pod["containers"][0] for pod in pods)
        words = launched["command"] + launched["args"]
        self.assertTrue(all(isinstance(word, str) for word in words))
        self.check_mpirun(words)
        self.check_flags(words)
        self.assertEqual(int(words[words.index("-n") + 1]), worker["replicas"] * spec["slotsPerWorker"])
        self.assertEqual(launcher["replicas"], 1)
        self.assertEqual(words[words.index("--threads") + 1], worked["resources"]["limits"]["cpu"])
        mounts = {m["mountPath"] for m in worked["volumeMounts"]}
        self.assertTrue(any(words[words.index("conclave") + 2].startswith(m + "/") for m in mounts))
        self.assertEqual({m["name"] for m in worked["volumeMounts"]}, {v["name"] for v in pods[1]["volumes"]})
        image = read("Containerfile")
        self.assertIn(worked["args"][worked["args"].index("-f") + 1], image)
        self.assertIn(f"HostKey {spec['sshAuthMountPath']}/id_rsa", image)
        for container in launched, worked:
            self.assertIn(f"--uid {container['securityContext']['runAsUser']} ", image)

    def test_containerfile(self):
        """What it copies is enough to configure, with the flags that it gives."""
        text = re.sub(r"^#.*\n", "", read("Containerfile"), flags=re.M)
        text = re.sub(r"\\\n\s*", "", text)
        first = text.split("\nFROM ")[0]
        source = os.path.join(self.scratch, "src")
        for what, to in re.findall(r"^COPY (\S+) (\S+)$", first, flags=re.M):
            found, copy = os.path.join(SOURCE, what), os.path.normpath(os.path.join(source, to))
            if os.path.isdir(found):
                shutil.copytree(found, copy, dirs_exist_ok=True)
            else:
                os.makedirs(copy, exist_ok=True)
                shutil.copy(found, copy)
        step = [s for s in re.findall(r"^RUN (.*)$", first, flags=re.M) if "cmake -S" in s]
        self.assertEqual(len(step), 1)
        configure = shlex.split(step[0].split("&&")[0])
        self.assertEqual(configure[0], "cmake")
        build = os.path.join(self.scratch, "build")
        run([CMAKE, *[{".": source, "build": build}.get(word, word) for word in configure[1:]]])
        self.assertTrue(os.path.exists(os.path.join(build, "CPackConfig.cmake")))
        # A Debian prefix: libraries go where Debian has them.
        with open(os.path.join(build, "package", "conclave.pc")) as f:
            self.assertRegex(f.read(), r"libdir=\$\{prefix\}/lib")
        for part in "conclave_*.deb", "openmpi-bin", "openssh-server", "USER conclave":
            self.assertIn(part, text)

    def test_readme_names_them(self):
        text = read("README.md")
        for name in "hostfile", "slurm/conclave.sbatch", "kubernetes/mpijob.yaml", "Containerfile":
            self.assertIn(f"`{name}`", text)
            self.assertTrue(os.path.exists(os.path.join(SOURCE, "launch", name)))


if __name__ == "__main__":
    for name in list(os.environ):
        if name.startswith(("CONCLAVE_", "CMAKE_", "SLURM_")):
            del os.environ[name]
    unittest.main(argv=sys.argv[:1], verbosity=2)
