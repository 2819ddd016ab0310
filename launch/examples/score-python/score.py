#!/usr/bin/env python3
"""mpirun -n RANKS score.py MODEL TEXTS: how likely a model finds each line of a file.

Writes a table (TSV) to standard output: tokens scored, the sum of their log-probabilities (natural),
perplexity per token, and the line."""
import argparse
import sys

import conclave
from mpi4py import MPI


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("texts", help="one text a line, UTF-8")
    parser.add_argument("--activations", default="auto")
    parser.add_argument("--deterministic", action="store_true",
                        help="the same figures at any number of ranks")
    parser.add_argument("--progress", action="store_true")
    return parser.parse_args()


def texts_of(path):
    with open(path, encoding="utf-8") as file:
        return [line for line in file.read().split("\n") if line]


def print_scores(engine, texts):
    print("tokens", "logprob", "perplexity", "text", sep="\t")
    for text, score in zip(texts, engine.score(texts) if texts else []):
        print(len(score.logprobs), f"{score.logprob:.6f}", f"{score.perplexity:.6f}", text, sep="\t")


def main():
    options = arguments()
    with conclave.Engine(options.model, MPI.COMM_WORLD, activations=options.activations,
                         deterministic=options.deterministic, progress=options.progress) as engine:
        if engine.rank == 0:  # the others serve it until it leaves the block
            print_scores(engine, texts_of(options.texts))


try:
    main()
except (conclave.Error, OSError) as error:  # of the library: the same on all ranks
    if MPI.COMM_WORLD.rank == 0:
        print(f"score.py: {error}", file=sys.stderr)
    sys.exit(1)
