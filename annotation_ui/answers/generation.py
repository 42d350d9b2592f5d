"""The jobs that have both variants answer a prompt; they belong to the server and go on when a browser leaves.

A job writes both answers at the same time and hands them over once both have ended. Answers that nobody could compare,
equal ones or an empty one, are drawn again. What went wrong is logged in full; annotators get a text that names
neither a variant nor a server.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from alignment.data.records import Message
from annotation_ui import texts
from annotation_ui.answers.variants import Unanswerable, Variant, VariantFailed
from annotation_ui.store.rows import FinishReason
from annotation_ui.vocabulary import SLOTS, Pane, Refused, Slot

logger = logging.getLogger(__name__)

MAX_REDRAWS = 3
NOTHING_YET = Pane("", done=False)


@dataclass(frozen=True)
class WrittenAnswer:
    """One answer as it is stored.

    Attributes:
        text: the answer, not empty.
        n_tokens: the stop token included; ``None`` where nobody counted.
        finish_reason: ``length``: the limit cut it off.
        seed: that it was drawn with.
        gen_ms: from its start to its end, milliseconds.
    """

    text: str
    n_tokens: int | None
    finish_reason: FinishReason
    seed: int
    gen_ms: int


@dataclass(frozen=True)
class JobOutcome:
    """How a job ended: with both answers by slot, or with what to tell the annotator."""

    answers: Mapping[Slot, WrittenAnswer] | None = None
    error: str | None = None


@dataclass
class _Job:
    """A pair at work. ``stop``: nobody needs the answers any more; ``ended``: the outcome is on its way."""

    pair_id: str
    messages: tuple[Message, ...]
    seed: int
    finish: Callable[[JobOutcome], None]
    panes: dict[Slot, Pane] = field(default_factory=lambda: dict.fromkeys(SLOTS, NOTHING_YET))
    stop: threading.Event = field(default_factory=threading.Event)
    ended: bool = False


class _Stopped(Exception):
    """A job was told to stop: by its other answer, which failed, or by the server."""


def seed_of(seed: int, draw: int, slot: Slot) -> int:
    """The seed of one answer, from 0 to 2^31 - 1: even for slot a, odd for b, and another one for each draw."""
    return 2 * random.Random(f"{seed}/{draw}").getrandbits(30) + SLOTS.index(slot)


class Generator:
    """Runs jobs, at most ``workers`` at once; more wait in the order in which they came.

    Attributes:
        variants: slot -> who answers there.
    """

    def __init__(self, variants: tuple[Variant, Variant], *, workers: int = 8) -> None:
        self.variants: Mapping[Slot, Variant] = dict(zip(SLOTS, variants, strict=True))
        self._lock = threading.Lock()
        self._jobs: dict[str, _Job] = {}
        self._closed = False
        self._runners = ThreadPoolExecutor(workers, thread_name_prefix="pair")
        self._writers = ThreadPoolExecutor(len(SLOTS) * workers, thread_name_prefix="answer")

    def start(
        self, pair_id: str, messages: Sequence[Message], *, seed: int, finish: Callable[[JobOutcome], None]
    ) -> None:
        """Have a pair answered; does nothing while its answers are being written already.

        Args:
            pair_id: names the job.
            messages: the dialogue, a user's turn last.
            seed: the seeds of both answers follow from it.
            finish: called once with the outcome, from the job's thread. It saves it; from then on the pair may be
                started again, even before ``finish`` has returned.

        Raises:
            Refused: the server is being stopped.
        """
        with self._lock:
            if self._closed:
                raise Refused(texts.SERVER_STOPPING)
            running = self._jobs.get(pair_id)
            if running is None or running.ended:
                job = self._jobs[pair_id] = _Job(pair_id, tuple(messages), seed, finish)
                self._runners.submit(self._run, job)

    def peek(self, pair_id: str) -> tuple[Pane, Pane] | None:
        """The answers in slots a and b as they stand; ``None`` once ``finish`` has returned, or without a job.

        Ask before reading what ``finish`` saves: a pair that is still unfinished there after ``None`` has no job.
        """
        with self._lock:
            job = self._jobs.get(pair_id)
        return None if job is None else (job.panes["a"], job.panes["b"])

    def close(self) -> None:
        """Stop all jobs, those that wait too; each still gets its ``finish``, with an error."""
        with self._lock:
            self._closed = True
            jobs = list(self._jobs.values())
        for job in jobs:
            job.stop.set()
        self._runners.shutdown()
        self._writers.shutdown()

    def _run(self, job: _Job) -> None:
        """One job from beginning to end."""
        outcome = self._outcome(job)
        with self._lock:
            job.ended = True
        try:
            job.finish(outcome)
        except Exception:
            logger.exception("pair %s: what came out could not be saved", job.pair_id)
        finally:
            with self._lock:
                if self._jobs.get(job.pair_id) is job:
                    del self._jobs[job.pair_id]

    def _outcome(self, job: _Job) -> JobOutcome:
        try:
            return JobOutcome(answers=self._comparable(job))
        except _Stopped:
            return JobOutcome(error=texts.SERVER_STOPPED)
        except Unanswerable as error:
            return JobOutcome(error=str(error))
        except VariantFailed:  # logged by the one that wrote
            return JobOutcome(error=texts.MODEL_FAILED)
        except Exception:
            logger.exception("pair %s: a failure that was not foreseen", job.pair_id)
            return JobOutcome(error=texts.MODEL_FAILED)

    def _comparable(self, job: _Job) -> dict[Slot, WrittenAnswer]:
        """Two answers that differ, neither of them empty."""
        for draw in range(1 + MAX_REDRAWS):
            answers = self._draw(job, draw)
            written = {answer.text.strip() for answer in answers.values()}
            if len(written) == len(SLOTS) and "" not in written:
                return answers
        problem = texts.EMPTY_ANSWERS if "" in written else texts.SAME_ANSWERS
        logger.warning("pair %s: given up after %d draws: %s", job.pair_id, 1 + MAX_REDRAWS, problem)
        raise Unanswerable(problem)

    def _draw(self, job: _Job, draw: int) -> dict[Slot, WrittenAnswer]:
        """Write both answers at the same time."""
        job.panes = dict.fromkeys(SLOTS, NOTHING_YET)
        futures: dict[Slot, Future[WrittenAnswer]] = {
            slot: self._writers.submit(self._write, job, slot, seed_of(job.seed, draw, slot)) for slot in SLOTS
        }
        wait(futures.values())
        errors = [error for future in futures.values() if (error := future.exception()) is not None]
        if errors:
            raise min(errors, key=lambda error: isinstance(error, _Stopped))  # why, rather than that it was stopped
        return {slot: future.result() for slot, future in futures.items()}

    def _write(self, job: _Job, slot: Slot, seed: int) -> WrittenAnswer:
        """Write one answer; where that fails, the other one need not go on."""
        try:
            return self._read(job, slot, seed)
        except _Stopped:
            raise
        except Exception as error:
            job.stop.set()
            reason = error.__cause__ if isinstance(error, Unanswerable) and error.__cause__ else error
            name = self.variants[slot].info.name
            logger.error("pair %s: %s did not answer: %s: %s", job.pair_id, name, type(error).__name__, reason)
            raise

    def _read(self, job: _Job, slot: Slot, seed: int) -> WrittenAnswer:
        """Show an answer as it grows, and return it whole."""
        started = time.monotonic()
        _check_wanted(job)
        for piece in self.variants[slot].stream(job.messages, seed=seed):
            _check_wanted(job)
            text = piece.text.replace("\0", "\N{REPLACEMENT CHARACTER}")  # PostgreSQL stores no zero bytes
            reason = piece.finish_reason
            job.panes[slot] = Pane(text, done=reason is not None, cut_off=reason == "length")
            if reason is not None:
                gen_ms = round(1000 * (time.monotonic() - started))
                return WrittenAnswer(text, piece.n_tokens, reason, seed, gen_ms)
        raise VariantFailed("it stopped without an end")


def _check_wanted(job: _Job) -> None:
    if job.stop.is_set():
        raise _Stopped
