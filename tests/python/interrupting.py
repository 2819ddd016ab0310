"""Ctrl-C at the very moment when the library, inside a call, asks whether to stop."""
import os
import signal
import threading

from conclave._guard import Guard


def interrupt(*_):
    os.kill(os.getpid(), signal.SIGINT)


class WhenAsked:
    """Made before the engine; once armed, the next question in the main thread meets a signal."""

    def __init__(self):
        self.armed = False
        self._abort = abort = Guard.abort

        def asked(guard, user):
            if self.armed and threading.current_thread() is threading.main_thread():
                self.armed = False
                interrupt()
            return abort(guard, user)

        Guard.abort = asked

    def remove(self):
        Guard.abort = self._abort
