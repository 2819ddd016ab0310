#!/usr/bin/env python3
"""Writes a bf16, f16 or f32 model as a codebook16 checkpoint: the matrices of its layers as codes,
scales and levels, all else as it is. Needs nothing but Python; reads and keeps the whole model in memory.

    write_checkpoint.py ../shakespeare /tmp/shakespeare-codebook16

The layout of the tensors is stated at the top of codebook.cpp."""
import argparse
import bisect
import json
import os
import re
import shutil
import struct
import sys
from array import array
from itertools import islice

# Matrices of layers; norms are vectors, and a router's choice is worth more than its few bytes.
QUANTIZED = re.compile(r"model\.layers\.\d+\..*(?<!\.gate)(?<!\.shared_expert_gate)\.weight")
COPIED = ("generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
          "tokenizer.model", "special_tokens_map.json", "vocab.json", "merges.txt")
SAMPLES = 20000  # weights that the levels are fitted to
ROUNDS = 30  # of the fit: the levels hardly move any more


def read_safetensors(path):
    """{name: (dtype, shape, bytes)}"""
    with open(path, "rb") as f:
        data = f.read()
    size = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    body = memoryview(data)[8 + size:]
    return {name: (t["dtype"], t["shape"], body[slice(*t["data_offsets"])]) for name, t in header.items()}


def write_safetensors(path, tensors):
    header, at = {}, 0
    for name, (dtype, shape, data) in sorted(tensors.items()):
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, (_, _, data) in sorted(tensors.items()):
            f.write(data)


def read_model(folder):
    index = os.path.join(folder, "model.safetensors.index.json")
    names = ["model.safetensors"]
    if os.path.exists(index):
        with open(index) as f:
            names = sorted(set(json.load(f)["weight_map"].values()))
    tensors = {}
    for name in names:
        tensors.update(read_safetensors(os.path.join(folder, name)))
    return tensors


def numbers(tensor):
    dtype, _, data = tensor
    if dtype == "BF16":  # the upper half of an f32
        wide = bytearray(2 * len(data))
        wide[2::4], wide[3::4] = data[0::2], data[1::2]
        return array("f", bytes(wide))
    if dtype == "F16":
        return array("f", struct.unpack(f"<{len(data) // 2}e", data))
    if dtype == "F32":
        return array("f", bytes(data))
    sys.exit(f"weights of type {dtype} are not known here: BF16, F16 or F32")


def groups_of(tensor, group_size):
    """The groups of a matrix, row by row."""
    values, columns = numbers(tensor), tensor[1][1]
    for row in range(0, len(values), columns):
        for begin in range(row, row + columns, group_size):
            yield values[begin:min(begin + group_size, row + columns)]


def largest(group):
    return max(max(group), -min(group))


def fit_levels(matrices, group_size):
    """16 levels for weights divided by the largest of their group: Lloyd's iteration, each level
    becoming the mean of the weights nearest to it."""
    step = max(1, sum(n * k for _, (n, k), _ in matrices) // SAMPLES)
    sample = []
    for matrix in matrices:
        for group in islice(groups_of(matrix, group_size), 0, None, step):
            top = largest(group)
            sample += [v / top for v in group if top > 0]
    sample.sort()
    levels = [-1 + i * 2 / 15 for i in range(16)]
    for _ in range(ROUNDS):
        cuts = [0] + [bisect.bisect(sample, (a + b) / 2) for a, b in zip(levels, levels[1:])] + [len(sample)]
        levels = [sum(sample[a:b]) / (b - a) if b > a else level
                  for level, a, b in zip(levels, cuts, cuts[1:])]
    return list(array("f", levels))


def quantize(tensor, levels, group_size):
    """(codes, scales, the f32 weights that they stand for), as bytes"""
    columns = tensor[1][1]
    middles = [(a + b) / 2 for a, b in zip(levels, levels[1:])]
    codes, scales, decoded = bytearray(), bytearray(), array("f")
    row = []
    for group in groups_of(tensor, group_size):
        half = struct.pack("<e", largest(group))
        scales += half
        scale = struct.unpack("<e", half)[0]
        cuts = [m * scale for m in middles]
        row += [bisect.bisect(cuts, v) for v in group]
        values = [level * scale for level in levels]
        decoded.extend([values[c] for c in row[-len(group):]])
        if len(row) == columns:
            row += [0] * (columns % 2)
            codes += bytes([low | high << 4 for low, high in zip(row[0::2], row[1::2])])
            row = []
    return bytes(codes), bytes(scales), decoded.tobytes()


def main():
    parser = argparse.ArgumentParser(
        description="Writes a model as a codebook16 checkpoint.",
        epilog="The same model and options give the same bytes.")
    parser.add_argument("model", help="folder of a model in bf16, f16 or f32 (safetensors)")
    parser.add_argument("out", help="folder to write: made where it is not there, else empty")
    parser.add_argument("--group-size", type=int, default=32, metavar="N",
                        help="columns that share a scale (default: 32)")
    parser.add_argument("--decoded", metavar="FILE",
                        help="also write the quantized weights as numbers, f32, to this safetensors file")
    args = parser.parse_args()
    if not 1 <= args.group_size <= 1 << 20:
        parser.error("--group-size must be from 1 to 1048576")
    if os.path.isdir(args.out) and os.listdir(args.out):
        parser.error(f"{args.out} is not empty")

    with open(os.path.join(args.model, "config.json")) as f:
        config = json.load(f)
    if "quantization_config" in config:
        parser.error(f"{args.model} is quantized already")
    tensors = read_model(args.model)
    names = sorted(n for n, t in tensors.items() if QUANTIZED.fullmatch(n) and len(t[1]) == 2)
    if not names:
        parser.error(f"{args.model} has no matrices of layers that this script knows")

    print(f"fitting 16 levels to {len(names)} matrices", file=sys.stderr)
    levels = fit_levels([tensors[name] for name in names], args.group_size)
    decoded, tenth = {}, 0
    for done, name in enumerate(names, 1):
        n, k = tensors[name][1]
        try:
            codes, scales, weights = quantize(tensors[name], levels, args.group_size)
        except OverflowError:
            sys.exit(f"{name}: weights beyond the f16 range of scales")
        del tensors[name]
        stem = name[:-len(".weight")]
        tensors[stem + ".codes"] = ("U8", [n, (k + 1) // 2], codes)
        tensors[stem + ".scales"] = ("F16", [n, -(-k // args.group_size)], scales)
        if args.decoded:
            decoded[name] = ("F32", [n, k], weights)
        if done * 10 // len(names) > tenth:
            tenth = done * 10 // len(names)
            print(f"quantizing {tenth * 10:3} %", file=sys.stderr)

    config["quantization_config"] = {
        "quant_method": "codebook16", "group_size": args.group_size, "levels": levels}
    os.makedirs(args.out, exist_ok=True)
    write_safetensors(os.path.join(args.out, "model.safetensors"), tensors)
    for name in COPIED:
        if os.path.exists(os.path.join(args.model, name)):
            shutil.copyfile(os.path.join(args.model, name), os.path.join(args.out, name))
    with open(os.path.join(args.out, "config.json"), "w") as f:
        json.dump(config, f, indent=2)
        f.write("\n")
    if args.decoded:
        write_safetensors(args.decoded, decoded)


if __name__ == "__main__":
    main()
