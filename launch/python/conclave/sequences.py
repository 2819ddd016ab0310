"""Sequences: what is asked for, what comes back, and how it comes."""
from __future__ import annotations

import ctypes
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional, TypedDict, Union

from . import _abi
from ._calls import check, ids, strings
from ._library import library
from .errors import usage
from .options import known, set_fields

Prompt = Union[str, Sequence[int]]  # a text, or token ids (also as a numpy array)


class SequenceOptions(TypedDict, total=False):
    """What is left out is as the library has it: greedy, without penalties."""
    max_tokens: int
    temperature: float         # 0: greedy
    top_k: int                 # 0: all
    top_p: float
    min_p: float
    seed: int
    repetition_penalty: float  # 1: none
    frequency_penalty: float
    presence_penalty: float
    logit_bias: Mapping[int, float]  # -100 to 100
    stop: Union[str, Sequence[str]]  # at most 16 texts, which end the output before them
    ignore_eos: bool


class Piece(NamedTuple):
    """What one step adds. Text comes in whole characters, so that it may be empty."""
    text: str
    token: int  # -1: none, only text that was held back


@dataclass(frozen=True)
class Result:
    text: str  # empty where the model has no tokenizer
    tokens: list[int]
    finish_reason: str  # "stop": by the model or a stop text; "length"; "cancelled"
    prompt_tokens: int


@dataclass(frozen=True)
class Score:
    """How likely a text is: `logprobs[i]` is that of `tokens[i + 1]` after those before it."""
    tokens: list[int]
    logprobs: list[float]

    @property
    def logprob(self) -> float:
        return math.fsum(self.logprobs)

    @property
    def perplexity(self) -> float:
        """Per token; nan for a text of one token, of which nothing is known."""
        count = len(self.logprobs)
        return math.exp(-self.logprob / count) if count else math.nan


# Position, address of the logits, how many there are.
LogitsSink = Callable[[int, int, int], None]


class Record:
    """What an engine knows of a sequence that it runs."""

    def __init__(self, sink: Optional[LogitsSink] = None) -> None:
        self.id = 0
        self.sink = sink
        self.new: deque[Piece] = deque()  # not yet streamed
        self.texts: list[str] = []
        self.tokens: list[int] = []
        self.finish = 0  # conclave_finish_reason
        self.prompt_tokens = 0

    def take(self, token: _abi.Token) -> None:
        data = ctypes.string_at(token.text, token.text_bytes) if token.text else b""
        text = data.decode("utf-8", "replace")
        if token.token >= 0:
            self.tokens.append(token.token)
        if token.token >= 0 or text:
            self.new.append(Piece(text, token.token))
        self.texts.append(text)
        self.finish = token.finish

    @property
    def finish_reason(self) -> Optional[str]:
        return _abi.FINISH_REASONS[self.finish]

    @property
    def result(self) -> Result:
        return Result("".join(self.texts), self.tokens, self.finish_reason or "cancelled",
                      self.prompt_tokens)


def is_batch(prompt: Any) -> bool:
    """Whether it is a list of prompts. An empty list is an empty prompt, which is refused."""
    return not isinstance(prompt, str) and len(prompt) > 0 and hasattr(prompt[0], "__len__")


def sequence_config(prompt: Prompt, options: Mapping[str, Any]) -> _abi.SequenceConfig:
    """It holds what it points to."""
    options = dict(options)
    known(options, SequenceOptions)
    config = _abi.SequenceConfig()
    check(library.conclave_sequence_config_init(ctypes.byref(config), ctypes.sizeof(config)))
    if isinstance(prompt, str):
        config.text = data = prompt.encode()
        config.text_bytes = len(data)
    elif len(prompt) == 0:
        raise usage("the prompt is empty: give at least one token")
    else:
        config.prompt = tokens = ids(prompt)
        config.prompt_tokens = len(tokens)
    stop = options.pop("stop", None) or []
    stop = [stop] if isinstance(stop, str) else list(stop)
    config.stop = strings(stop)
    config.stop_count = len(stop)
    bias = options.pop("logit_bias", None) or {}
    config.logit_bias = (_abi.LogitBias * len(bias))(
        *(_abi.LogitBias(token, value) for token, value in bias.items()))
    config.logit_bias_count = len(bias)
    set_fields(config, options)
    return config
