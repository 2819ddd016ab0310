"""Text to token ids and back."""
from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Iterable

from ._calls import c_string, check, new_handle
from ._calls import ids as as_ids
from ._library import library
from .options import Path


class Tokenizer:
    """The tokenizer.json of a model directory."""

    def __init__(self, model: Path) -> None:
        self._handle = new_handle(library.conclave_tokenizer_open, c_string(os.fsencode(model)))
        weakref.finalize(self, library.conclave_tokenizer_destroy, self._handle)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        data = text.encode()
        tokens = (ctypes.c_int32 * (len(data) + 8))()  # a token has a byte or more, but for a few
        count = ctypes.c_size_t()
        while True:
            check(library.conclave_tokenizer_encode(
                self._handle, data, len(data), add_special_tokens, tokens, len(tokens),
                ctypes.byref(count)))
            if count.value <= len(tokens):
                return tokens[:count.value]
            tokens = (ctypes.c_int32 * count.value)()

    def decode(self, tokens: Iterable[int], skip_special_tokens: bool = True) -> str:
        ids = as_ids(tokens)
        size = ctypes.c_size_t()
        text = ctypes.create_string_buffer(16 * len(ids) + 64)
        while True:
            check(library.conclave_tokenizer_decode(
                self._handle, ids, len(ids), skip_special_tokens, text, len(text),
                ctypes.byref(size)))
            if size.value <= len(text):
                return text.raw[:size.value].decode("utf-8", "replace")
            text = ctypes.create_string_buffer(size.value)
