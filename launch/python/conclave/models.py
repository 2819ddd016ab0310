"""What a checkpoint is, and what running it would take: from its headers alone, without ranks."""
from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from ._calls import take_json
from ._library import library
from .options import EngineOptions, Path, engine_config

if TYPE_CHECKING:
    from typing_extensions import Unpack


def inspect(model: Path, **options: Unpack[EngineOptions]) -> dict[str, Any]:
    """What `conclave inspect --json` writes. Of the options load_format and plugins matter."""
    config = engine_config(model, dict(options))
    return take_json(library.conclave_inspect, ctypes.byref(config))


def plan(model: Path, ranks: int = 1, **options: Unpack[EngineOptions]) -> dict[str, Any]:
    """What each of `ranks` ranks would hold, read and run on, as `conclave plan --json` writes it.
    The options are those of Engine."""
    config = engine_config(model, dict(options))
    return take_json(library.conclave_plan, ctypes.byref(config), ranks)
