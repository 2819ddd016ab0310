"""Formats, kernels and readers from outside."""
from __future__ import annotations

import os
import weakref
from typing import Union

from ._calls import new_handle, strings, take_json
from ._library import library


class Plugins:
    """Plugins that were loaded: an option of engines, of plan() and of inspect()."""

    def __init__(self, directories: list[str]) -> None:
        self.handle = new_handle(library.conclave_plugins_load, strings(directories),
                                 len(directories))
        weakref.finalize(self, library.conclave_plugins_destroy, self.handle)

    @property
    def report(self) -> object:
        """What was found and what was refused, as `conclave plugins --json` writes it."""
        return take_json(library.conclave_plugins_report, self.handle)


def load_plugins(*directories: Union[str, "os.PathLike[str]"]) -> Plugins:
    """Loads every *.so of the directories; none given: those of CONCLAVE_PLUGIN_PATH, then
    conclave/plugins beside the library. Each is tried in a child process first: call it before
    MPI is initialised (before `from mpi4py import MPI`) and while there is one thread."""
    return Plugins([os.fspath(directory) for directory in directories])
