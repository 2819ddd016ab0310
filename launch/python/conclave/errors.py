"""What the library's statuses are in Python."""
from __future__ import annotations


class Error(Exception):
    """A call of the library failed: `status` is its number, `message` what it said."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    def __reduce__(self):
        return type(self), (self.status, self.message)


class UsageError(Error, ValueError):
    """The caller asked for something that cannot be."""


class BadContentError(Error):
    """A file is there, but what it holds is wrong."""


class MissingFileError(Error):
    """A file is not there or cannot be opened."""


class UnsupportedError(Error):
    """Well-formed, but not served by this library or CPU."""


class ResourceError(Error):
    """Memory, disk or address space ran out."""


class CommError(Error):
    """A collective failed, or a peer is gone."""


class CancelledError(Error):
    """A rank was interrupted."""


class InternalError(Error):
    """A bug of the library."""


class BusyError(Error):
    """A callback called the engine that it was called by."""


USAGE, BUSY, HOST_STATUS = 1, 11, 1000

_CLASSES = {
    USAGE: UsageError, 2: BadContentError, 3: MissingFileError, 4: UnsupportedError,
    5: ResourceError, 6: CommError, 7: CancelledError, 8: InternalError, BUSY: BusyError,
}


def error_of(status: int, message: str) -> Error:
    """The exception that stands for a status of the library."""
    return _CLASSES.get(status, Error)(status, message)


def usage(message: str) -> UsageError:
    return UsageError(USAGE, message)
