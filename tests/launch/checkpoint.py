"""Reads and writes safetensors checkpoints, well-formed or broken, with the standard library alone."""
import json
import os
import shutil
import struct


def read_tensors(path):
    """{name: (dtype, shape, bytes)} in file order."""
    with open(path, "rb") as f:
        data = f.read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    ordered = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    return {
        name: (t["dtype"], t["shape"], data[8 + size + t["data_offsets"][0] : 8 + size + t["data_offsets"][1]])
        for name, t in ordered
    }


def write_tensors(path, tensors):
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, _, data in tensors.values():
            f.write(data)


def ids(tensor):
    dtype, _, data = tensor
    assert dtype == "I64"
    return list(struct.unpack(f"<{len(data) // 8}q", data))


def floats(tensor):
    dtype, _, data = tensor
    assert dtype == "F32"
    return list(struct.unpack(f"<{len(data) // 4}f", data))


class Copy:
    """A copy of a checkpoint to break. Use as a directory path with str()."""

    def __init__(self, model, parent, name):
        self.path = os.path.join(parent, name)
        shutil.copytree(model, self.path)

    def __str__(self):
        return self.path

    def file(self, name="model.safetensors"):
        return os.path.join(self.path, name)

    def config(self, **changes):
        """Sets keys of config.json; None removes one."""
        with open(self.file("config.json")) as f:
            config = json.load(f)
        for key, value in changes.items():
            if value is None:
                del config[key]
            else:
                config[key] = value
        with open(self.file("config.json"), "w") as f:
            json.dump(config, f)
        return self

    def tensors(self, change):
        tensors = read_tensors(self.file())
        change(tensors)
        write_tensors(self.file(), tensors)
        return self

    def split(self):
        """Cuts model.safetensors into two files with an index."""
        tensors = read_tensors(self.file())
        os.remove(self.file())
        parts = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
        where = {name: parts[i % 2] for i, name in enumerate(tensors)}
        for part in parts:
            write_tensors(self.file(part), {n: t for n, t in tensors.items() if where[n] == part})
        index = {"metadata": {"total_size": sum(len(t[2]) for t in tensors.values())}, "weight_map": where}
        with open(self.file("model.safetensors.index.json"), "w") as f:
            json.dump(index, f)
        return parts
