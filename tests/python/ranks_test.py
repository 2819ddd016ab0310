"""ranks_test.py RANKS: rank_checks.py under mpirun, with the figures of one rank to compare with."""
import json
import os
import sys
import tempfile

import conclave
import numpy
from support import MODEL, PROMPT, command_text, mpirun, reference

TOKENS = 40

ranks = int(sys.argv[1])
with tempfile.TemporaryDirectory() as scratch:
    ids = reference()["input_ids"][0]
    with conclave.Engine(MODEL, deterministic=True) as engine:
        numpy.save(os.path.join(scratch, "logits.npy"), engine.logits(ids))
    with open(os.path.join(scratch, "wanted.json"), "w") as f:
        json.dump({"model": MODEL, "prompt": PROMPT, "text": command_text(TOKENS), "tokens": TOKENS,
                   "ids": ids.tolist()}, f)
    checks = os.path.join(os.path.dirname(os.path.abspath(__file__)), "rank_checks.py")
    code, out, err = mpirun(ranks, checks, scratch, str(ranks))
print(out, err, sep="\n")
assert code == 0, f"exit code {code}"
assert out.endswith("all checks passed\n")
