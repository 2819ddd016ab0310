"""The ranks of an engine."""
from __future__ import annotations

import ctypes
import sys
import weakref
from typing import Any

from ._calls import check, new_handle
from ._library import library
from .errors import usage


class Comm:
    """Ranks that the library knows. An engine that is made on it keeps it."""

    def __init__(self, handle: ctypes.c_void_p) -> None:
        self.handle = handle
        self.close = weakref.finalize(self, library.conclave_comm_destroy, handle)

    def _ask(self, function: Any) -> int:
        value = ctypes.c_int32()
        check(function(self.handle, ctypes.byref(value)))
        return value.value

    @property
    def rank(self) -> int:
        return self._ask(library.conclave_comm_rank)

    @property
    def size(self) -> int:
        return self._ask(library.conclave_comm_size)


def local(ranks: int) -> list[Comm]:
    """Ranks that are threads of this process: a communicator for each, given to an Engine that its
    own thread makes and uses. For trying things out: all of them share the memory and the CPUs."""
    if ranks < 1:
        raise usage(f"{ranks} ranks: at least one is needed")
    handles = (ctypes.c_void_p * ranks)()
    check(library.conclave_comm_local(ranks, handles))
    return [Comm(ctypes.c_void_p(handle)) for handle in handles]


def of_mpi(comm: Any) -> Comm:
    """Collective. Ranks of an mpi4py communicator, which is duplicated once and otherwise left
    alone."""
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is None or not isinstance(comm, mpi.Comm):
        raise TypeError(f"comm is an mpi4py communicator, one of local(), or None; not {comm!r}")
    if not hasattr(library, "conclave_comm_mpi_address"):
        raise usage("libconclave.so was built without MPI (CONCLAVE_WITH_MPI)")
    if comm == mpi.COMM_NULL:
        raise usage("comm is MPI.COMM_NULL")
    if not mpi.Is_initialized() or mpi.Is_finalized():
        raise usage("comm: MPI is not initialised, or finalised already")
    return Comm(new_handle(library.conclave_comm_mpi_address, ctypes.c_void_p(mpi._addressof(comm)),
                           mpi._sizeof(comm), mpi.get_vendor()[0].encode()))
