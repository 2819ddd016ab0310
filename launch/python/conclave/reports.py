"""Where an engine's messages and its loading's progress go."""
from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Optional, TextIO, Union

Log = Callable[[int, str], object]               # conclave_log_level, message
Progress = Callable[[int, int, float], object]   # bytes, total, seconds
# By conclave_log_level.
LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)

logger = logging.getLogger("conclave")
logger.addHandler(logging.NullHandler())


def log_function(log: Optional[Log]) -> Log:
    """The level is one of `logging`'s."""
    target = log or logger.log
    return lambda level, message: target(LEVELS[level], message)


class Bar:
    """A line on a terminal that is written again, elsewhere a line for every 10 %."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._next = 0 if self._terminal else 10

    def __call__(self, done: int, total: int, seconds: float) -> None:
        percent = 100 * done // total if total else 100
        if percent < self._next:
            return
        line = f"loading {percent:3d} %  {done / 2**20:.1f} of {total / 2**20:.1f} MiB"
        if seconds > 0:
            line += f"  {done / 2**20 / seconds:.1f} MiB/s"
        if self._terminal:
            self._next = percent + 1
            end = "\n" if percent == 100 else ""
            self._stream.write(f"\r{line:<72}{end}")
        else:
            self._next = percent // 10 * 10 + 10
            self._stream.write(line + "\n")
        self._stream.flush()


def progress_function(progress: Union[bool, Progress, None]) -> Optional[Progress]:
    if progress is True:
        return Bar(sys.stderr)
    return progress or None
