"""An engine's handle and what belongs to it: what is left to close when the Engine is gone."""
from __future__ import annotations

import ctypes
import os
import sys
from collections import deque
from collections.abc import Mapping
from typing import Any, Optional

from . import _abi, _calls
from ._calls import check
from ._guard import Guard
from ._library import library
from .comm import Comm
from .errors import HOST_STATUS, Error, usage
from .reports import Log, Progress
from .sequences import LogitsSink, Prompt, Record, sequence_config


class Core:
    def __init__(self, config: _abi.EngineConfig, comm: Optional[Comm], owns_comm: bool,
                 log: Log, progress: Optional[Progress]) -> None:
        self.guard = Guard()
        self.handle: Optional[ctypes.c_void_p] = None
        self._comm, self._owns_comm = comm, owns_comm
        self._process = os.getpid()
        self._records: dict[int, Record] = {}
        self._given_up: deque[int] = deque()
        self._log, self._progress = log, progress
        self._failed = False  # no rank steps any more
        self._over = False    # rank 0 has shut down
        self._on_token = _abi.TokenCallback(self._take_token)
        self._on_logits = _abi.LogitsCallback(self._take_logits)
        self._config = config  # its callbacks are called as long as the engine lives
        config.abort = _abi.AbortCallback(self.guard.abort)
        config.log = _abi.LogCallback(self._take_log)
        if progress is not None:
            config.progress = _abi.ProgressCallback(self._take_progress)
        try:
            with self.guard.entered():
                self.handle = _calls.new_handle(
                    library.conclave_engine_create, ctypes.byref(config),
                    comm.handle if comm else None)
                self.info = _calls.filled(_abi.EngineInfo, library.conclave_engine_get_info,
                                          self.handle)
        except BaseException:
            self._destroy()
            raise

    # ---- callbacks -----------------------------------------------------------------------------

    def _take_log(self, _user: object, level: int, message: bytes) -> None:
        with self.guard.callback():
            self._log(level, message.decode("utf-8", "replace"))

    def _take_progress(self, _user: object, done: int, total: int, seconds: float) -> int:
        assert self._progress is not None
        with self.guard.callback():
            self._progress(done, total, seconds)
            return 0
        return HOST_STATUS

    def _take_token(self, _user: object, token: Any) -> int:
        with self.guard.callback():
            record = self._records.get(token.contents.sequence)
            if record is not None:
                record.take(token.contents)
        return 0

    def _take_logits(self, _user: object, sequence: int, position: int, logits: int,
                     count: int) -> int:
        with self.guard.callback():
            record = self._records.get(sequence)
            if record is not None and record.sink is not None:
                record.sink(position, logits, count)
        return 0

    # ---- sequences -----------------------------------------------------------------------------

    def opened(self) -> ctypes.c_void_p:
        if self.handle is None:
            raise usage("the engine is closed")
        return self.handle

    def leading(self, what: str) -> None:
        self.opened()
        rank = self.info["rank"]
        if rank != 0:
            raise usage(f"{what}() is called on rank 0; rank {rank} calls follow(), which serves "
                        "rank 0 until it closes its engine")

    def add(self, prompt: Prompt, options: Mapping[str, Any],
            sink: Optional[LogitsSink] = None) -> Record:
        """Inside the guard, as step()."""
        config = sequence_config(prompt, options)
        config.on_token = self._on_token
        if sink is not None:
            config.on_prompt_logits = self._on_logits
        record, number = Record(sink), ctypes.c_uint64()
        check(library.conclave_engine_add(self.opened(), ctypes.byref(config),
                                          ctypes.byref(number)))
        record.id = number.value
        self._records[record.id] = record
        state = _abi.SequenceState(struct_size=ctypes.sizeof(_abi.SequenceState))
        check(library.conclave_engine_sequence(self.handle, record.id, ctypes.byref(state)))
        record.prompt_tokens = state.prompt_tokens
        return record

    def step(self) -> None:
        self.forget_given_up()
        info = _abi.StepInfo(struct_size=ctypes.sizeof(_abi.StepInfo))
        status = library.conclave_engine_step(self.opened(), ctypes.byref(info))
        self._failed = self._failed or status != _abi.OK
        check(status)
        self.guard.check()

    def finish(self, record: Record) -> None:
        while not record.finish:
            self.step()

    def cancel(self) -> None:
        """From any thread."""
        for number in list(self._records):
            library.conclave_engine_cancel(self.handle, number)

    def give_up(self, record: Record) -> None:
        """From any thread and from anywhere, the garbage collector too: what needs the engine is
        done before the next step."""
        if self.handle is not None and self._records.pop(record.id, None) is not None:
            if not record.finish:
                library.conclave_engine_cancel(self.handle, record.id)
            self._given_up.append(record.id)

    def forget_given_up(self) -> None:
        """Inside the guard."""
        while self._given_up:
            library.conclave_engine_release(self.handle, self._given_up.popleft())

    # ---- the end -------------------------------------------------------------------------------

    def follow(self) -> None:
        with self.guard.entered():
            if self._over:
                return
            self._failed = True  # unless it returns as it should
            check(library.conclave_engine_follow(self.opened()))
            self._failed, self._over = False, True

    def close(self, *, follow: bool = True) -> None:
        """Rank 0 ends follow() on all ranks; the others follow until it does, unless something has
        failed, or they are not to."""
        if self.handle is None:
            return
        try:
            if follow and self.info["rank"] != 0 and not self._failed:
                self.follow()
        finally:
            self._destroy()

    def _destroy(self) -> None:
        with self.guard.entered(patient=True):
            handle, self.handle = self.handle, None
            try:
                if handle is not None:
                    check(library.conclave_engine_destroy(handle))
            finally:
                self._records.clear()
                if self._comm is not None and self._owns_comm:
                    self._comm.close()
                self._comm = None

    def last_resort(self) -> None:
        """When the Engine was forgotten: the program or the garbage collector ends it. Other ranks
        may rely on this one, so it still follows, unless the program failed. Not in a child process,
        to which nothing of this belongs."""
        if os.getpid() != self._process or self.handle is None:
            return
        mpi = sys.modules.get("mpi4py.MPI")
        if self._owns_comm and mpi is not None and mpi.Is_finalized():
            return
        try:
            self.close(follow=not hasattr(sys, "last_value"))
        except Error:
            pass  # nobody is left to tell
