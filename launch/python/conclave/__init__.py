"""Mixture-of-Experts inference across CPU machines, over libconclave."""
from ._library import version as __version__
from .comm import Comm, local
from .engine import Engine, Stream
from .errors import (BadContentError, BusyError, CancelledError, CommError, Error, InternalError,
                     MissingFileError, ResourceError, UnsupportedError, UsageError)
from .models import inspect, plan
from .options import EngineOptions
from .plugins import Plugins, load_plugins
from .sequences import Piece, Result, Score, SequenceOptions
from .tokenizer import Tokenizer

__all__ = [
    "BadContentError", "BusyError", "CancelledError", "Comm", "CommError", "Engine",
    "EngineOptions", "Error", "InternalError", "MissingFileError", "Piece", "Plugins",
    "ResourceError", "Result", "Score", "SequenceOptions", "Stream", "Tokenizer",
    "UnsupportedError", "UsageError", "__version__", "inspect", "load_plugins", "local", "plan",
]
