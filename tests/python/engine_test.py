"""One process: what the engine gives, and ranks that are threads."""
import gc
import io
import json
import logging
import os
import pickle
import threading
import unittest

import conclave
import numpy
from support import COMMAND, MODEL, PROMPT, command_text, reference, run

TOKENS = 40


class Models(unittest.TestCase):
    def command(self, *arguments):
        code, out, err = run(COMMAND, *arguments, "--json")
        self.assertEqual(code, 0, err)
        return json.loads(out)

    def test_inspect(self):
        self.assertEqual(conclave.inspect(MODEL), self.command("inspect", MODEL))

    def test_plan(self):
        self.assertEqual(conclave.plan(MODEL, ranks=3, expert_parallel="ep", threads=2),
                         self.command("plan", MODEL, "--ranks", "3", "--expert-parallel", "ep", "--threads", "2"))

    def test_errors(self):
        with self.assertRaises(conclave.MissingFileError) as caught:
            conclave.inspect("/no/such/model")
        self.assertIn("/no/such/model", str(caught.exception))
        again = pickle.loads(pickle.dumps(caught.exception))
        self.assertEqual((type(again), again.status, again.message),
                         (type(caught.exception), caught.exception.status, caught.exception.message))
        with self.assertRaisesRegex(conclave.UsageError, "abacus"):
            conclave.plan(MODEL, activations="abacus")
        with self.assertRaisesRegex(TypeError, "activation is not an option.* activations"):
            conclave.plan(MODEL, activation="f32")
        with self.assertRaises(TypeError):
            conclave.plan(MODEL, threads="2")
        with self.assertRaisesRegex(OverflowError, "threads"):
            conclave.plan(MODEL, threads=(1 << 32) + 1)
        with self.assertRaises(conclave.UsageError):
            conclave.local(0)

    def test_no_plugins(self):
        plugins = conclave.load_plugins("/no/such/folder")
        self.assertIsInstance(plugins.report, (dict, list))
        self.assertEqual(conclave.inspect(MODEL, plugins=plugins), conclave.inspect(MODEL))


class Engines(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.engine = conclave.Engine(MODEL, deterministic=True, activations="f32")
        cls.addClassCleanup(cls.engine.close)

    def test_what_it_is(self):
        engine = self.engine
        self.assertEqual((engine.rank, engine.size, engine.vocab_size, engine.max_model_len), (0, 1, 1024, 1024))
        self.assertEqual(engine.info["experts"], 8)
        self.assertIn("f32 activations", engine.description)
        steps = engine.stats["steps"]
        engine.generate(PROMPT, max_tokens=3, ignore_eos=True)
        self.assertEqual(engine.stats["steps"], steps + 3)

    def test_generates_the_command_s_text(self):
        wanted = command_text(TOKENS, "--activations", "f32")
        result = self.engine.generate(PROMPT, max_tokens=TOKENS)
        self.assertEqual(result.text, wanted)
        self.assertEqual((len(result.tokens), result.finish_reason), (TOKENS, "length"))
        self.assertEqual(result.prompt_tokens, len(self.engine.tokenize(PROMPT)))
        ids = numpy.array(self.engine.tokenize(PROMPT))
        self.assertEqual(self.engine.generate(ids, max_tokens=TOKENS), result)

    def test_samples_the_command_s_text(self):
        flags = {"temperature": 0.9, "top-k": 20, "top-p": 0.95, "min-p": 0.01, "seed": 7,
                 "repetition-penalty": 1.1, "frequency-penalty": 0.2, "presence-penalty": 0.3}
        given = [word for name, value in flags.items() for word in ("--" + name, str(value))]
        wanted = command_text(TOKENS, "--activations", "f32", "--logit-bias", "5-100", *given)
        result = self.engine.generate(PROMPT, max_tokens=TOKENS, logit_bias={5: -100},
                                      **{name.replace("-", "_"): value for name, value in flags.items()})
        self.assertEqual(result.text, wanted)
        self.assertNotEqual(result, self.engine.generate(PROMPT, max_tokens=TOKENS))

    def test_greedy_reference(self):
        wanted = reference()
        ids = wanted["greedy_ids"].tolist()
        result = self.engine.generate(wanted["greedy_prompt"], max_tokens=len(ids), ignore_eos=True)
        self.assertEqual(result.tokens, ids)

    def test_batch_and_stop(self):
        whole = self.engine.generate(PROMPT, max_tokens=TOKENS)
        stop = whole.text[12:15]
        first, second = self.engine.generate([PROMPT, self.engine.tokenize("JULIET:")], max_tokens=TOKENS, stop=stop)
        self.assertEqual(first.text, whole.text[:whole.text.index(stop)])
        self.assertEqual(first.finish_reason, "stop")
        self.assertEqual(second, self.engine.generate("JULIET:", max_tokens=TOKENS, stop=["never", stop]))

    def test_stream(self):
        wanted = self.engine.generate(PROMPT, max_tokens=TOKENS)
        stream = self.engine.stream(PROMPT, max_tokens=TOKENS)
        other = self.engine.stream("JULIET:", max_tokens=TOKENS)
        steps = self.engine.stats["steps"]
        pieces = list(stream)
        self.assertEqual("".join(piece.text for piece in pieces), wanted.text)
        self.assertEqual([piece.token for piece in pieces if piece.token >= 0], wanted.tokens)
        self.assertEqual(stream.result, wanted)
        others = list(other)  # came along
        self.assertEqual(self.engine.stats["steps"], steps + TOKENS)
        self.assertEqual("".join(piece.text for piece in others),
                         self.engine.generate("JULIET:", max_tokens=TOKENS).text)

    def test_a_stream_that_is_left(self):
        wanted = self.engine.generate(PROMPT, max_tokens=TOKENS)
        for leave in (lambda s: s.close(), lambda s: s.__exit__(None, None, None), lambda s: None):
            stream = self.engine.stream(PROMPT, max_tokens=500)
            self.assertEqual(next(stream).token, wanted.tokens[0])
            next(stream)
            leave(stream)
            kept = list(stream) if leave(stream) is None and stream._record.finish else None
            self.assertIn(kept, ([], None))
            del stream
            gc.collect()
            generated = self.engine.stats["generated_tokens"]
            self.assertEqual(self.engine.generate(PROMPT, max_tokens=TOKENS), wanted)
            self.assertEqual(self.engine.stats["generated_tokens"], generated + TOKENS)

    def test_logits(self):
        wanted = reference()
        rows = wanted["input_ids"]
        found = self.engine.logits(list(rows))
        for i, logits in enumerate(found):
            self.assertEqual((logits.shape, logits.dtype), ((64, 1024), numpy.float32))
            self.assertLess(numpy.abs(logits - wanted["logits"][i]).max(), 2e-3)
        numpy.testing.assert_array_equal(self.engine.logits(rows[1]), found[1])

    def test_scores(self):
        ids = reference()["input_ids"][0]
        logits = self.engine.logits(ids).astype(numpy.float64)
        shifted = logits - logits.max(axis=1, keepdims=True)
        wanted = shifted - numpy.log(numpy.exp(shifted).sum(axis=1, keepdims=True))
        wanted = wanted[numpy.arange(63), ids[1:]]
        score = self.engine.score(ids)
        numpy.testing.assert_allclose(score.logprobs, wanted, rtol=1e-12, atol=1e-12)
        self.assertEqual(score.tokens, ids.tolist())
        self.assertAlmostEqual(score.logprob, wanted.sum(), places=9)
        self.assertAlmostEqual(score.perplexity, numpy.exp(-wanted.mean()), places=9)
        one, text = self.engine.score([[5], "To be, or not to be"])
        self.assertEqual(one.logprobs, [])
        self.assertTrue(numpy.isnan(one.perplexity))
        self.assertEqual(self.engine.detokenize(text.tokens), "To be, or not to be")

    def test_tokenizer(self):
        text = "Ay, me! caf\u00e9 \U0001f600\nwell\0then"
        tokens = self.engine.tokenize(text)
        self.assertEqual(self.engine.detokenize(tokens), text)
        self.assertEqual(conclave.Tokenizer(MODEL).encode(text), tokens)
        self.assertEqual(self.engine.tokenize(""), [])
        self.assertEqual(self.engine.detokenize([]), "")
        long = "To be, or not to be. " * 500
        self.assertEqual(self.engine.detokenize(numpy.array(self.engine.tokenize(long))), long)

    def test_what_is_refused_leaves_it_usable(self):
        wanted = self.engine.generate(PROMPT, max_tokens=5)
        for prompt, options, error in (
                ("", {}, conclave.UsageError), ([], {}, conclave.UsageError), ([1 << 20], {}, conclave.UsageError),
                ([-1], {}, conclave.UsageError), ([1 << 40], {}, OverflowError), ([1] * 1024, {}, conclave.UsageError),
                (PROMPT, {"temperature": -1}, conclave.UsageError), (PROMPT, {"stop": [""]}, conclave.UsageError),
                (PROMPT, {"temperatur": 1}, TypeError), (PROMPT, {"max_tokens": "5"}, TypeError),
                (["x", [1 << 20]], {}, conclave.UsageError), (PROMPT, {"seed": -1}, OverflowError),
                (PROMPT, {"stop": "a\0"}, ValueError), (5, {}, TypeError)):
            with self.assertRaises(error, msg=f"{prompt} {options}"):
                self.engine.generate(prompt, **options)
            self.assertEqual(self.engine.generate(PROMPT, max_tokens=5), wanted)
        with self.assertRaises(TypeError):
            self.engine.stream(["a", "b"])
        with self.assertRaises(conclave.UsageError):
            self.engine.follow()

    def test_cancel_from_a_thread(self):
        stream = self.engine.stream(PROMPT, max_tokens=500, ignore_eos=True)
        next(stream)
        thread = threading.Thread(target=self.engine.cancel)
        thread.start()
        thread.join()
        self.assertLess(len(list(stream)), 5)
        self.assertEqual(stream.result.finish_reason, "cancelled")

    def test_threads_take_turns(self):
        wanted = self.engine.generate(PROMPT, max_tokens=10)
        found = []
        threads = [threading.Thread(target=lambda: found.append(self.engine.generate(PROMPT, max_tokens=10)))
                   for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(found, [wanted] * 4)


class Lives(unittest.TestCase):
    def test_progress_and_log(self):
        seen = []
        with conclave.Engine(MODEL, progress=lambda *figures: seen.append(figures)) as engine:
            self.assertEqual(engine.rank, 0)
        self.assertEqual(seen[-1][0], seen[-1][1])
        self.assertGreater(seen[-1][1], 10 << 20)

    def test_progress_bar(self):
        from conclave.reports import Bar

        class Terminal(io.StringIO):
            def isatty(self):
                return True

        for stream, wanted in ((io.StringIO(), "loading 100 %"), (Terminal(), "\rloading 100 %")):
            bar = Bar(stream)
            for done in range(0, 401, 3):
                bar(min(done, 400) << 20, 400 << 20, 1.0)
            bar(400 << 20, 400 << 20, 2.0)
            self.assertIn(wanted, stream.getvalue())
            self.assertTrue(stream.getvalue().endswith("\n"))

    def test_callbacks_that_raise(self):
        def broken(*_):
            raise KeyError("mine")

        with self.assertRaisesRegex(KeyError, "mine"):
            conclave.Engine(MODEL, progress=broken)

    def test_log_levels(self):
        from conclave.reports import log_function

        said = []
        log_function(lambda *what: said.append(what))(2, "x")
        self.assertEqual(said, [(logging.WARNING, "x")])
        with self.assertLogs("conclave", logging.ERROR) as logged:
            log_function(None)(3, "100 % y")
        self.assertEqual([r.getMessage() for r in logged.records], ["100 % y"])

    def test_closed(self):
        with conclave.Engine(MODEL) as engine:
            stream = engine.stream(PROMPT)
            next(stream)
        engine.close()
        for use in (lambda: engine.generate(PROMPT), lambda: engine.stats, lambda: engine.logits([1]),
                    lambda: list(stream), lambda: engine.stream(PROMPT), lambda: engine.description):
            with self.assertRaisesRegex(conclave.UsageError, "closed"):
                use()
        engine.cancel()  # there is nothing to cancel
        self.assertGreater(len(engine.tokenize(PROMPT)), 0)

    def test_dropped(self):
        import weakref

        engine = conclave.Engine(MODEL)
        core = engine._core
        gone = weakref.ref(engine)
        del engine
        self.assertIsNone(gone())
        self.assertIsNone(core.handle)

    def test_bad_model(self):
        for model, error in (("/no/such/model", conclave.MissingFileError), (__file__, conclave.Error)):
            with self.assertRaises(error):
                conclave.Engine(model)
        with self.assertRaisesRegex(TypeError, "mpi4py"):
            conclave.Engine(MODEL, comm=3)

    def test_two_engines(self):
        with conclave.Engine(MODEL, deterministic=True) as a, conclave.Engine(MODEL, deterministic=True) as b:
            one, two = a.stream(PROMPT, max_tokens=20), b.stream(PROMPT, max_tokens=20)
            for left, right in zip(one, two):
                self.assertEqual(left, right)


class Threads(unittest.TestCase):
    """Ranks as threads: they could not meet if one held the GIL while it waits for the others."""

    def test_local(self):
        wanted = command_text(TOKENS)
        comms = conclave.local(3)
        self.assertEqual([(comm.rank, comm.size) for comm in comms], [(0, 3), (1, 3), (2, 3)])
        found = {}

        def rank(comm):
            try:
                with conclave.Engine(MODEL, comm, deterministic=True, threads=1) as engine:
                    if engine.rank == 0:
                        found[0] = engine.generate(PROMPT, max_tokens=TOKENS).text
                    elif engine.rank == 1:
                        try:
                            engine.generate(PROMPT)
                        except conclave.UsageError as error:
                            found[1] = str(error)
                        engine.follow()
                    # rank 2 leaves it to the end of the block
            except BaseException as error:
                found[comm.rank] = error

        threads = [threading.Thread(target=rank, args=[comm]) for comm in comms]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(found[0], wanted)
        self.assertIn("follow()", found[1])
        self.assertNotIn(2, found)


if __name__ == "__main__":
    os.environ.pop("CONCLAVE_PLUGIN_PATH", None)
    unittest.main()
