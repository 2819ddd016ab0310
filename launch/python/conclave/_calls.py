"""Calls of the library: statuses become exceptions, texts become str."""
from __future__ import annotations

import ctypes
import json
import operator
from collections.abc import Callable, Iterable
from typing import Any, Union

from . import _abi
from ._library import library
from .errors import error_of


def check(status: int) -> None:
    """Raises what the library said of its last call, in this thread."""
    if status != _abi.OK:
        raise error_of(status, library.conclave_last_error().decode("utf-8", "replace"))


def new_handle(function: Callable[..., int], *arguments: Any) -> ctypes.c_void_p:
    handle = ctypes.c_void_p()
    check(function(*arguments, ctypes.byref(handle)))
    return handle


def take_text(function: Callable[..., int], *arguments: Any) -> str:
    """The text that `function` makes, which belongs to the library until it is given back."""
    text = new_handle(function, *arguments)
    try:
        return ctypes.string_at(text).decode("utf-8", "replace")
    finally:
        library.conclave_free(text)


def take_json(function: Callable[..., int], *arguments: Any) -> Any:
    return json.loads(take_text(function, *arguments))


def filled(struct_type: type, function: Callable[..., int], handle: ctypes.c_void_p) -> dict:
    """The struct that `function` fills, as a dict."""
    struct = struct_type(struct_size=ctypes.sizeof(struct_type))
    check(function(handle, ctypes.byref(struct)))
    return {name: getattr(struct, name) for name, _ in struct._fields_ if name != "struct_size"}


def c_string(text: Union[str, bytes]) -> bytes:
    """C would take a text that holds a 0 for a shorter one."""
    data = text.encode() if isinstance(text, str) else text
    if b"\0" in data:
        raise ValueError(f"a character 0 in {text!r}")
    return data


def strings(texts: list[str]) -> Any:
    return (ctypes.c_char_p * len(texts))(*map(c_string, texts))


def ids(tokens: Iterable[int]) -> Any:
    """Any integers, numpy's too. OverflowError for what has no 32 bits: ctypes would cut it."""
    values = [operator.index(token) for token in tokens]
    for value in values:
        if not -(1 << 31) <= value < 1 << 31:
            raise OverflowError(f"{value} is not a token id")
    return (ctypes.c_int32 * len(values))(*values)
