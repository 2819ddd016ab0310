"""The options of an engine, and what makes a conclave_engine_config of them."""
from __future__ import annotations

import ctypes
import operator
import os
from typing import Any, TypedDict, Union

from . import _abi
from ._calls import c_string, check
from ._library import library
from .errors import usage
from .plugins import Plugins

Path = Union[str, "os.PathLike[str]"]


class EngineOptions(TypedDict, total=False):
    """What is left out is as the library has it; see `conclave --help` for each one's meaning."""
    load_format: str             # "auto", "dummy", or a reader's name
    dummy_dtype: str             # "bf16", "f16", "f32"
    activations: str             # "auto", "f32", "bf16", "int8"
    expert_parallel: str         # "auto", "tp", "ep", "2x4" (TPxEP)
    quantization: str            # what the checkpoint says
    kv_cache_dtype: str          # "auto", "f32", "f16", "bf16"
    deterministic: bool          # the same numbers at any number of ranks and threads
    threads: int                 # of this rank; 0: its share of the CPUs
    max_model_len: int           # tokens of one sequence; 0: what the model allows
    max_num_seqs: int            # sequences in one step
    max_num_batched_tokens: int  # tokens in one step; longer prompts go in chunks
    kv_cache_tokens: int         # tokens of KV held; 0: max_model_len
    deadline_seconds: float      # a collective that waits longer fails; 0: never
    plugins: Plugins             # of load_plugins(); the same on all ranks


def set_fields(struct: ctypes.Structure, options: dict[str, Any]) -> None:
    """Numbers and texts, by the fields' types. OverflowError for what does not fit: ctypes itself
    would cut it."""
    types: dict[str, Any] = {field[0]: field[1] for field in struct._fields_}
    for name, value in options.items():
        if value is None:
            continue
        if hasattr(value, "__index__"):  # numpy's integers too
            value = operator.index(value)
        elif types[name] is ctypes.c_char_p:
            value = c_string(os.fsencode(value) if name == "model" else value)
        setattr(struct, name, value)
        if isinstance(value, int) and getattr(struct, name) != value:
            raise OverflowError(f"{name}={value} is out of range")


def known(options: dict[str, Any], names: type) -> None:
    """TypeError for a name that no option has, as a function with these parameters would raise."""
    for name in options:
        if name not in names.__annotations__:
            raise TypeError(f"{name} is not an option; there are: "
                            + ", ".join(names.__annotations__))


def engine_config(model: Path, options: dict[str, Any]) -> _abi.EngineConfig:
    known(options, EngineOptions)
    plugins = options.pop("plugins", None)
    config = _abi.EngineConfig()
    check(library.conclave_engine_config_init(ctypes.byref(config), ctypes.sizeof(config)))
    set_fields(config, {"model": model, **options})
    if plugins is not None:
        if not isinstance(plugins, Plugins):
            raise usage("plugins is what load_plugins() returned")
        config.plugins = plugins.handle
        config.kept = plugins  # alive as long as the config
    return config
