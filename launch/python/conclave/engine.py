"""A model that runs on the ranks of a communicator."""
from __future__ import annotations

import contextlib
import ctypes
import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Optional, Union, overload

from . import _abi, _calls
from ._core import Core
from ._library import library
from .comm import Comm, of_mpi
from .errors import usage
from .options import EngineOptions, Path, engine_config
from .reports import Log, Progress, log_function, progress_function
from .sequences import Piece, Prompt, Record, Result, Score, SequenceOptions, is_batch
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    import numpy
    from typing_extensions import Unpack


class Stream:
    """The pieces of one sequence as they come. Leaving it early cancels the sequence."""

    def __init__(self, engine: "Engine", record: Record) -> None:
        self._engine = engine
        self._record = record

    def __iter__(self) -> "Stream":
        return self

    def __next__(self) -> Piece:
        record = self._record
        if not record.new and not record.finish:
            try:
                with self._engine._core.guard.entered(patient=True):
                    while not record.new and not record.finish:
                        self._engine._core.step()
            except BaseException:
                self.close()
                raise
        if record.new:
            return record.new.popleft()
        self.close()
        raise StopIteration

    @property
    def result(self) -> Result:
        """What came so far, read or not; its finish_reason is "cancelled" until the end."""
        return self._record.result

    def close(self) -> None:
        """Nothing comes any more. Nothing happens where all has come."""
        record = self._record
        self._engine._core.give_up(record)
        if not record.finish:
            record.finish = _abi.FINISH_REASONS.index("cancelled")
            record.new.clear()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class Engine:
    """A model on one rank (comm None), on the ranks of an mpi4py communicator, or on those of
    local(). All of them make their Engine at the same time.

    Rank 0 generates and scores; the other ranks follow() it until it closes its engine. close(), and
    the end of a with block, follow too:

        with conclave.Engine("path/of/a/model", MPI.COMM_WORLD) as engine:
            if engine.rank == 0:
                print(engine.generate("Once upon a time", max_tokens=50).text)

    `progress` is True for a bar on standard error, or a function of (bytes, total, seconds), called
    on rank 0 while loading. `log` is a function of (level, message) with a level of `logging`; None:
    logging's logger "conclave". The options are those of EngineOptions.

    Calls from several threads take turns. Ctrl-C in the main thread raises KeyboardInterrupt: at once
    while loading and following, which all ranks then end; elsewhere after the step that is under way,
    and the engine stays usable. A second one ends that step too, and with it the engine."""

    def __init__(self, model: Path, comm: Any = None, *,
                 progress: Union[bool, Progress, None] = None, log: Optional[Log] = None,
                 **options: Unpack[EngineOptions]) -> None:
        config = engine_config(model, dict(options))
        ranks = comm if comm is None or isinstance(comm, Comm) else of_mpi(comm)
        self._core = Core(config, ranks, ranks is not comm, log_function(log),
                          progress_function(progress))
        # Runs at the latest when the interpreter ends, which is before mpi4py finalises MPI.
        self._last_resort = weakref.finalize(self, self._core.last_resort)
        self._model = model
        self._tokenizer: Optional[Tokenizer] = None

    # ---- what it is ------------------------------------------------------------------------------

    @property
    def info(self) -> dict[str, int]:
        """The fields of conclave_engine_info."""
        return dict(self._core.info)

    @property
    def rank(self) -> int:
        return self._core.info["rank"]

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return self._core.info["size"]

    @property
    def vocab_size(self) -> int:
        return self._core.info["vocab_size"]

    @property
    def max_model_len(self) -> int:
        return self._core.info["max_model_len"]

    @property
    def stats(self) -> dict[str, Union[int, float]]:
        """This rank's figures since the engine was made: the fields of conclave_engine_stats."""
        with self._core.guard.entered(patient=True):
            return _calls.filled(_abi.EngineStats, library.conclave_engine_get_stats,
                                 self._core.opened())

    @property
    def description(self) -> str:
        """One line on how it runs."""
        with self._core.guard.entered(patient=True):
            return _calls.take_text(library.conclave_engine_describe, self._core.opened())

    @property
    def tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            self._tokenizer = Tokenizer(self._model)
        return self._tokenizer

    def tokenize(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens)

    def detokenize(self, tokens: Sequence[int], skip_special_tokens: bool = True) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens)

    # ---- rank 0 ----------------------------------------------------------------------------------

    @overload
    def generate(self, prompt: Prompt,  # type: ignore[overload-overlap]  # [] is a prompt
                 **options: Unpack[SequenceOptions]) -> Result: ...
    @overload
    def generate(self, prompt: Sequence[Prompt],
                 **options: Unpack[SequenceOptions]) -> list[Result]: ...

    def generate(self, prompt, **options):
        """What follows a prompt (a text or token ids), or each prompt of a list, which run together.
        The options are those of SequenceOptions."""
        with self._running("generate"), contextlib.ExitStack() as records:
            started = [self._add(records, p, options) for p in _prompts(prompt)]
            for record in started:
                self._core.finish(record)
            return _as_given(prompt, [record.result for record in started])

    def stream(self, prompt: Prompt, **options: Unpack[SequenceOptions]) -> Stream:
        """An iterator over what follows the prompt, piece by piece. Steps are taken by whoever asks
        for a piece; they advance all streams that are open."""
        with self._running("stream"):
            if is_batch(prompt):
                raise TypeError("stream() takes one prompt; open several streams for several")
            return Stream(self, self._core.add(prompt, options))

    def logits(self, prompt: Union[Prompt, Sequence[Prompt]]
               ) -> "Union[numpy.ndarray, list[numpy.ndarray]]":
        """The logits that follow each position of a prompt: float32 [tokens, vocab_size]. Needs
        numpy."""
        import numpy

        def start(records: contextlib.ExitStack, one: Prompt) -> "numpy.ndarray":
            def keep(position: int, address: int, count: int) -> None:
                row = rows[position]
                if count != row.size:
                    raise ValueError(f"{count} logits, not {row.size}")
                ctypes.memmove(row.ctypes.data, address, row.nbytes)

            record = self._add(records, one, {"max_tokens": 0}, keep)
            rows = numpy.full((record.prompt_tokens, self.vocab_size), numpy.nan, numpy.float32)
            started.append(record)
            return rows

        with self._running("logits"), contextlib.ExitStack() as records:
            started: list[Record] = []
            found = [start(records, one) for one in _prompts(prompt)]
            for record in started:
                self._core.finish(record)
            return _as_given(prompt, found)

    def score(self, prompt: Union[Prompt, Sequence[Prompt]]) -> Union[Score, list[Score]]:
        """The log-probability of each token of a text (or of ids), given those before it. Needs
        numpy, and memory for one position's logits only."""
        import numpy

        def start(records: contextlib.ExitStack, one: Prompt) -> Score:
            tokens = self.tokenize(one) if isinstance(one, str) else [int(t) for t in one]
            score = Score(tokens, [])

            def add(position: int, address: int, count: int) -> None:
                if position + 1 < len(tokens):
                    row = numpy.ctypeslib.as_array((ctypes.c_float * count).from_address(address))
                    row = row.astype(numpy.float64)
                    row -= row.max()
                    score.logprobs.append(
                        float(row[tokens[position + 1]] - numpy.log(numpy.exp(row).sum())))

            started.append(self._add(records, tokens, {"max_tokens": 0}, add))
            return score

        with self._running("score"), contextlib.ExitStack() as records:
            started: list[Record] = []
            scores = [start(records, one) for one in _prompts(prompt)]
            for record in started:
                self._core.finish(record)
            return _as_given(prompt, scores)

    def cancel(self) -> None:
        """From any thread: what is being generated ends with the step that is under way."""
        self._core.cancel()

    # ---- all ranks -------------------------------------------------------------------------------

    def follow(self) -> None:
        """Ranks other than 0: take part in rank 0's work until it closes its engine."""
        if self.rank == 0:
            raise usage("follow() is for the other ranks: rank 0 generates")
        self._core.follow()

    def close(self) -> None:
        """On rank 0 ends follow() on all ranks; on the others follows first. Before MPI.Finalize()."""
        self._last_resort.detach()
        self._core.close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """A rank that leaves by an exception does not follow any more."""
        self._last_resort.detach()
        self._core.close(follow=kind is None)

    # ---- inside ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _running(self, what: str) -> Iterator[None]:
        self._core.leading(what)
        with self._core.guard.entered(patient=True):
            yield
            self._core.forget_given_up()

    def _add(self, records: contextlib.ExitStack, prompt: Prompt, options: Any,
             sink: Any = None) -> Record:
        record = self._core.add(prompt, options, sink)
        records.callback(self._core.give_up, record)
        return record


def _prompts(prompt: Any) -> list[Prompt]:
    return list(prompt) if is_batch(prompt) else [prompt]


def _as_given(prompt: Any, results: list) -> Any:
    return results if is_batch(prompt) else results[0]
