"""Ctrl-C and other signals: when they are noticed, and what is left after them."""
import os
import signal
import subprocess
import sys
import threading
import unittest

import conclave
from conclave._guard import Guard
from conclave.sequences import Record
from interrupting import WhenAsked, interrupt
from support import MODEL, PROMPT

TOKENS = 12


class InSteps(unittest.TestCase):
    """The signal comes while the library is inside a step, in a callback of the third token."""

    def setUp(self):
        self.engine = conclave.Engine(MODEL, deterministic=True)
        self.addCleanup(self.engine.close)
        self.wanted = self.engine.generate(PROMPT, max_tokens=TOKENS)
        self.steps = self.engine.stats["steps"]

    def at_third_token(self, action, times=1):
        take, seen = Record.take, []

        def taken(record, token):
            take(record, token)
            seen.append(token)
            if len(seen) == 3:
                for _ in range(times):
                    action()

        Record.take = taken
        self.addCleanup(setattr, Record, "take", take)

    def after(self, steps):
        self.assertEqual(self.engine.stats["steps"], self.steps + steps)
        self.assertEqual(self.engine.generate(PROMPT, max_tokens=TOKENS), self.wanted)
        self.assertEqual(self.engine.stats["steps"], self.steps + steps + TOKENS)
        self.assertIs(signal.getsignal(signal.SIGINT), signal.default_int_handler)

    def test_generate(self):
        self.at_third_token(interrupt)
        with self.assertRaises(KeyboardInterrupt):
            self.engine.generate(PROMPT, max_tokens=500, ignore_eos=True)
        self.after(3)

    def test_stream(self):
        self.at_third_token(interrupt)
        stream = self.engine.stream(PROMPT, max_tokens=500, ignore_eos=True)
        with self.assertRaises(KeyboardInterrupt):
            list(stream)
        self.assertEqual(stream.result.tokens, self.wanted.tokens[:3])
        self.assertEqual(list(stream), [])
        self.after(3)

    def test_handlers_that_do_not_raise(self):
        called = []
        before = signal.signal(signal.SIGINT, lambda number, frame: called.append(number))
        self.addCleanup(signal.signal, signal.SIGINT, before)
        self.at_third_token(interrupt, times=2)
        self.assertEqual(self.engine.generate(PROMPT, max_tokens=TOKENS), self.wanted)
        self.assertIn(called, ([signal.SIGINT], [signal.SIGINT] * 2))
        signal.signal(signal.SIGINT, before)
        self.after(TOKENS)

    def test_another_signal(self):
        def stop(number, frame):
            raise SystemExit(number)

        before = signal.signal(signal.SIGTERM, stop)
        self.addCleanup(signal.signal, signal.SIGTERM, before)
        self.at_third_token(lambda: os.kill(os.getpid(), signal.SIGTERM))
        with self.assertRaises(SystemExit):
            self.engine.generate(PROMPT, max_tokens=TOKENS)
        self.assertIs(signal.getsignal(signal.SIGTERM), stop)
        self.after(3)

    def test_an_exception_of_a_callback(self):
        def fail():
            raise KeyError("mine")

        self.at_third_token(fail)
        with self.assertRaisesRegex(KeyError, "mine"):
            self.engine.generate(PROMPT, max_tokens=TOKENS)
        self.after(3)

    def test_a_callback_that_calls_the_engine(self):
        self.at_third_token(lambda: self.engine.generate(PROMPT))
        with self.assertRaises(conclave.BusyError):
            self.engine.generate(PROMPT, max_tokens=TOKENS)
        self.after(3)


class Patience(unittest.TestCase):
    def test_a_second_interrupt_aborts(self):
        guard = Guard()
        for patient, answers in (True, [0, 1]), (False, [1, 1]):
            found = []
            with self.assertRaises(KeyboardInterrupt):
                with guard.entered(patient=patient):
                    self.assertEqual(guard.abort(), 0)
                    for _ in answers:
                        interrupt()
                        found.append(guard.abort())
            self.assertEqual(found, answers)
            self.assertIs(signal.getsignal(signal.SIGINT), signal.default_int_handler)


class InWaits(unittest.TestCase):
    def setUp(self):
        self.when_asked = WhenAsked()
        self.addCleanup(self.when_asked.remove)

    def test_loading(self):
        with self.assertRaises(KeyboardInterrupt):
            conclave.Engine(MODEL, progress=interrupt)
        with conclave.Engine(MODEL) as engine:
            self.assertEqual(len(engine.generate(PROMPT, max_tokens=3).tokens), 3)

    def test_waiting_for_other_ranks(self):
        """Rank 1 never comes: only the abort callback ends the wait."""
        comms = conclave.local(2)
        self.when_asked.armed = True
        with self.assertRaises(KeyboardInterrupt):
            conclave.Engine(MODEL, comms[0])
        self.assertFalse(self.when_asked.armed)

    def test_following(self):
        comms = conclave.local(2)
        made, ended = threading.Event(), []

        def lead():
            engine = conclave.Engine(MODEL, comms[0])
            made.set()
            try:
                while True:
                    engine.generate(PROMPT, max_tokens=100, ignore_eos=True)
            except BaseException as error:
                ended.append(error)
            engine.close()

        thread = threading.Thread(target=lead)
        thread.start()
        with self.assertRaises(KeyboardInterrupt):
            with conclave.Engine(MODEL, comms[1]) as engine:
                made.wait()
                self.when_asked.armed = True
                engine.follow()
        thread.join()
        self.assertIsInstance(ended[0], conclave.CancelledError)


PROGRAM = """
import conclave, sys
with conclave.Engine(sys.argv[1]) as engine:
    try:
        print("ready", flush=True)
        while True:
            engine.generate("ROMEO:", max_tokens=500, ignore_eos=True)
    except KeyboardInterrupt:
        print("interrupted", len(engine.generate("ROMEO:", max_tokens=5, ignore_eos=True).tokens))
"""


class Process(unittest.TestCase):
    def test_sigint(self):
        with subprocess.Popen([sys.executable, "-c", PROGRAM, MODEL], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as program:
            self.assertEqual(program.stdout.readline(), "ready\n")
            program.send_signal(signal.SIGINT)
            out, err = program.communicate(timeout=60)
        self.assertEqual((out, err, program.returncode), ("interrupted 5\n", "", 0))


if __name__ == "__main__":
    unittest.main()
