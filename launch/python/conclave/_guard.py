"""What goes on in Python while the library runs: signals, and callbacks that raise.

The library runs without the GIL, and Python handles signals only where Python code runs: in the
library's callbacks, of which `abort` comes every 20 ms. An exception cannot leave a callback through
the library, so all are caught there and raised when the library has returned. For signals that means
that handlers must not run wherever the interpreter would run them (the entry of a callback is
outside of its `try`): while the library runs each handler is replaced by one that takes a note, and
`abort` runs the real one."""
from __future__ import annotations

import contextlib
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator

from .errors import BUSY, error_of


class Guard:
    """One engine's calls, one at a time: other threads wait for their turn."""

    def __init__(self) -> None:
        self._turn = threading.RLock()
        self._inside = False
        self._patient = False
        self._error: BaseException | None = None
        self._insisted = False
        self._arrived: deque[tuple[int, object]] = deque()
        self._handlers: dict[int, Callable] = {}

    @contextlib.contextmanager
    def entered(self, *, patient: bool = False) -> Iterator[None]:
        """Around every call of the library that can take long. Raises at its end what a signal's
        handler or a callback has raised. A patient call is not aborted for it, so that the engine
        stays usable: check() then says when to leave; a second exception does abort it."""
        with self._turn:
            if self._inside:
                raise error_of(BUSY, "a callback called the engine that it was called by")
            self._inside, self._patient = True, patient
            self._error, self._insisted = None, False
            failure = None
            try:
                self._take_signals()
                try:
                    yield
                finally:
                    self._give_signals_back()
            except BaseException as raised:
                failure = raised
            finally:
                self._inside = False
            self._run_handlers()
            error, self._error = self._error, None
        if error is not None:
            raise error from None
        if failure is not None:
            raise failure

    def check(self) -> None:
        """Between two calls of the library: raises what there is to raise."""
        self._run_handlers()
        if self._error is not None:
            raise self._error

    @contextlib.contextmanager
    def callback(self) -> Iterator[None]:
        """Around the Python code of a callback: keeps what it raises."""
        try:
            yield
        except BaseException as error:
            self._keep(error)

    def abort(self, _user: object = None) -> int:
        """The library's abort callback: other than 0 ends the call on all ranks."""
        self._run_handlers()
        return int(self._error is not None and (not self._patient or self._insisted))

    def _keep(self, error: BaseException) -> None:
        self._insisted = self._error is not None
        self._error = self._error or error

    def _run_handlers(self) -> None:
        while self._arrived:
            number, frame = self._arrived.popleft()
            with self.callback():
                self._handlers[number](number, frame)

    def _note(self, number: int, frame: object) -> None:
        self._arrived.append((number, frame))

    def _take_signals(self) -> None:
        """Python runs handlers in its main thread only, and lets no other one change them."""
        self._handlers = {}
        if threading.current_thread() is not threading.main_thread():
            return
        for number in signal.valid_signals():
            handler = signal.getsignal(number)
            if callable(handler):
                self._handlers[number] = handler
                signal.signal(number, self._note)

    def _give_signals_back(self) -> None:
        for number, handler in self._handlers.items():
            if signal.getsignal(number) == self._note:
                signal.signal(number, handler)
