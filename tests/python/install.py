"""install.py PACKAGE FOLDER: pip installs a copy of the package into the folder, without a network.

pip builds inside the folder that it is given, and the source tree is not to be written to."""
import os
import shutil
import subprocess
import sys
import tempfile

package, folder = sys.argv[1:3]
with open(os.path.join(package, "README.md")) as f:
    assert "pip install ./launch/python" in f.read()
shutil.rmtree(folder, ignore_errors=True)
with tempfile.TemporaryDirectory() as scratch:
    copy = os.path.join(scratch, "python")
    shutil.copytree(package, copy)
    subprocess.run([sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index",
                    "--disable-pip-version-check", "--target", folder, copy], check=True)
installed = set(os.listdir(os.path.join(folder, "conclave")))
wanted = {name for name in os.listdir(os.path.join(package, "conclave")) if name != "__pycache__"}
missing = wanted - installed
assert not missing, f"not installed: {missing}"
print("installed", sorted(installed))
