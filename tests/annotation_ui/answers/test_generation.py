"""Jobs that have two variants answer: both at once, once per pair, drawn again, stopped, and failing in plain words."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from alignment.data.records import Message
from annotation_ui import texts
from annotation_ui.answers.generation import Generator, JobOutcome, WrittenAnswer, seed_of
from annotation_ui.answers.variants import LocalVariant, Piece, Unanswerable, VariantFailed
from annotation_ui.store.pairs import VariantInfo
from annotation_ui.store.rows import FinishReason
from annotation_ui.vocabulary import Pane, Refused

if TYPE_CHECKING:
    from alignment.models.backbone import Backbone

ASK = [Message(role="user", content="what is it")]
URL = "http://10.1.2.3:8000/v1"
PATIENCE_SECONDS = 60.0
Step = str | threading.Event | Exception


def until(ready: Callable[[], object]) -> None:
    """Wait until something is true; a test that waits in vain fails."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not ready():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.001)


class Script:
    """A variant that plays one take per call, the last one over and over.

    A step of a take is the text so far, an event to wait for, or an error to fail with.
    """

    def __init__(self, name: str, *takes: Sequence[Step], finish: FinishReason | None = "stop") -> None:
        self.info = VariantInfo(f"secret-{name}", "", None, None, {"temperature": 1.0, "max_new_tokens": 9})
        self.takes, self.finish = takes, finish
        self.calls: list[tuple[list[Message], int]] = []
        self.ended = self.active = self.most_active = 0
        self._lock = threading.Lock()

    def stream(self, messages: Sequence[Message], *, seed: int) -> Iterator[Piece]:
        with self._lock:
            take = self.takes[min(len(self.calls), len(self.takes) - 1)]
            self.calls.append((list(messages), seed))
            self.active += 1
            self.most_active = max(self.most_active, self.active)
        try:
            text = ""
            for step in take:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, threading.Event):
                    assert step.wait(PATIENCE_SECONDS)
                else:
                    text = step
                    yield Piece(text)
            self.ended += 1
            if self.finish is not None:
                yield Piece(text, self.finish, n_tokens=len(text))
        finally:
            with self._lock:
                self.active -= 1


class Ends:
    """Where jobs hand over what came out."""

    def __init__(self) -> None:
        self.outcomes: list[JobOutcome] = []
        self.threads: list[threading.Thread] = []

    def __call__(self, outcome: JobOutcome) -> None:
        self.threads.append(threading.current_thread())
        self.outcomes.append(outcome)

    def only(self) -> JobOutcome:
        """The outcome, once it is there."""
        until(lambda: self.outcomes)
        (outcome,) = self.outcomes
        return outcome

    def texts(self) -> tuple[str, str]:
        """Both answers of the only outcome."""
        answers = self.only().answers
        assert answers is not None
        return answers["a"].text, answers["b"].text


@pytest.fixture
def ends() -> Ends:
    return Ends()


@pytest.fixture
def running() -> Iterator[Callable[..., Generator]]:
    """Makes generators that are closed after the test."""
    made: list[Generator] = []

    def make(a: Script | LocalVariant, b: Script | LocalVariant, *, workers: int = 8) -> Generator:
        made.append(Generator((a, b), workers=workers))
        return made[-1]

    yield make
    for generator in made:
        generator.close()


def run(generator: Generator, ends: Ends, *, seed: int = 7, pair: str = "p") -> JobOutcome:
    """Start a pair and wait for its end."""
    generator.start(pair, ASK, seed=seed, finish=ends)
    until(lambda: generator.peek(pair) is None)
    return ends.only()


Running = Callable[..., Generator]


class TestBothAnswers:
    def test_grow_at_the_same_time(self, running: Running, ends: Ends) -> None:
        go_a, go_b, end_a = threading.Event(), threading.Event(), threading.Event()
        generator = running(
            Script("x", ["one", go_a, "one two", end_a], finish="length"), Script("y", ["uno", go_b, "uno dos"])
        )
        generator.start("p", ASK, seed=7, finish=ends)
        until(lambda: generator.peek("p") == (Pane("one", done=False), Pane("uno", done=False)))
        go_a.set()
        until(lambda: generator.peek("p") == (Pane("one two", done=False), Pane("uno", done=False)))
        go_b.set()
        until(lambda: generator.peek("p") == (Pane("one two", done=False), Pane("uno dos", done=True)))
        assert not ends.outcomes
        end_a.set()
        assert ends.texts() == ("one two", "uno dos")

    def test_come_out_whole(self, running: Running, ends: Ends) -> None:
        a, b = Script("x", ["yes"], finish="length"), Script("y", ["never"])
        answers = run(running(a, b), ends, seed=7).answers
        assert answers is not None and list(answers) == ["a", "b"]
        for slot, expected in (
            ("a", WrittenAnswer("yes", 3, "length", seed_of(7, 0, "a"), answers["a"].gen_ms)),
            ("b", WrittenAnswer("never", 5, "stop", seed_of(7, 0, "b"), answers["b"].gen_ms)),
        ):
            assert answers[slot] == expected  # type: ignore[index]
            assert answers[slot].gen_ms >= 0  # type: ignore[index]
        assert a.calls == [(ASK, seed_of(7, 0, "a"))]
        assert b.calls == [(ASK, seed_of(7, 0, "b"))]

    def test_are_cut_off_where_the_limit_ended_them(self, running: Running, ends: Ends) -> None:
        held = threading.Event()
        generator = running(Script("x", ["yes"], finish="length"), Script("y", ["no", held]))
        generator.start("p", ASK, seed=7, finish=ends)
        until(lambda: generator.peek("p") == (Pane("yes", done=True, cut_off=True), Pane("no", done=False)))
        held.set()

    def test_hold_nothing_that_a_database_refuses(self, running: Running, ends: Ends) -> None:
        run(running(Script("x", ["a\0b"]), Script("y", ["no"])), ends)
        assert ends.texts() == ("a\N{REPLACEMENT CHARACTER}b", "no")

    def test_are_timed(self, running: Running, ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
        now = [10.0]
        monkeypatch.setattr("annotation_ui.answers.generation.time", SimpleNamespace(monotonic=lambda: now[0]))

        class Slow(Script):
            def stream(self, messages: Sequence[Message], *, seed: int) -> Iterator[Piece]:
                yield Piece("y")
                now[0] += 0.25
                yield Piece("yes", "stop")

        answers = run(running(Slow("x"), Script("y", ["no"])), ends).answers
        assert answers is not None
        assert answers["a"].gen_ms == 250


class TestJobs:
    def test_a_second_start_does_nothing(self, running: Running, ends: Ends) -> None:
        held, others = threading.Event(), Ends()
        a, b = Script("x", [held, "yes"]), Script("y", ["no"])
        generator = running(a, b)
        generator.start("p", ASK, seed=7, finish=ends)
        until(lambda: a.calls)
        generator.start("p", ASK, seed=8, finish=others)
        held.set()
        assert ends.texts() == ("yes", "no")
        generator.close()
        assert (len(a.calls), len(b.calls), others.outcomes) == (1, 1, [])

    def test_pairs_do_not_mix(self, running: Running) -> None:
        class Echo(Script):
            def stream(self, messages: Sequence[Message], *, seed: int) -> Iterator[Piece]:
                yield Piece(f"{self.info.name} {messages[0].content}", "stop")

        generator = running(Echo("x"), Echo("y"), workers=3)
        all_ends = [Ends() for _ in range(20)]
        for number, ends in enumerate(all_ends):
            generator.start(f"p{number}", [Message(role="user", content=f"ask {number}")], seed=number, finish=ends)
        for number, ends in enumerate(all_ends):
            assert ends.texts() == (f"secret-x ask {number}", f"secret-y ask {number}")

    def test_the_answers_can_be_seen_until_they_are_saved(self, running: Running) -> None:
        seen: list[object] = []
        generator = running(Script("x", ["yes"]), Script("y", ["no"]))
        generator.start("p", ASK, seed=7, finish=lambda _: seen.append(generator.peek("p")))
        until(lambda: generator.peek("p") is None)
        assert seen == [(Pane("yes"), Pane("no"))]

    def test_the_job_hands_over_from_a_thread_of_its_own(self, running: Running, ends: Ends) -> None:
        run(running(Script("x", ["yes"]), Script("y", ["no"])), ends)
        assert ends.threads[0] is not threading.current_thread()

    def test_there_is_nothing_to_see_without_a_job(self, running: Running) -> None:
        assert running(Script("x"), Script("y")).peek("p") is None

    def test_a_pair_can_be_tried_again_as_soon_as_its_failure_is_saved(self, running: Running, ends: Ends) -> None:
        """Whoever reads that failure may be faster than the job that saved it."""
        held = threading.Event()
        a = Script("x", [VariantFailed("busy")], ["y", held, "yes"])
        generator = running(a, Script("y", ["no"]), workers=1)
        failures: list[str | None] = []

        def save_and_retry(outcome: JobOutcome) -> None:
            failures.append(outcome.error)
            generator.start("p", ASK, seed=8, finish=ends)

        generator.start("p", ASK, seed=7, finish=save_and_retry)
        until(lambda: len(a.calls) == 2)  # the only worker is done with the first try
        until(lambda: generator.peek("p") == (Pane("y", done=False), Pane("no")))
        held.set()
        assert ends.texts() == ("yes", "no")
        assert failures == [texts.MODEL_FAILED]
        until(lambda: generator.peek("p") is None)

    def test_only_so_many_run_at_once_and_the_others_wait(self, running: Running) -> None:
        held = threading.Event()
        a = Script("x", [held, "yes"])
        generator = running(a, Script("y", ["no"]), workers=2)
        all_ends = [Ends() for _ in range(6)]
        for number, ends in enumerate(all_ends):
            generator.start(f"p{number}", ASK, seed=number, finish=ends)
        until(lambda: a.active == 2)
        assert generator.peek("p5") == (Pane("", done=False), Pane("", done=False)), "it waits"
        held.set()
        assert [ends.texts() for ends in all_ends] == [("yes", "no")] * 6
        assert a.most_active == 2

    def test_what_cannot_be_saved_is_logged_and_gone(
        self, running: Running, ends: Ends, caplog: pytest.LogCaptureFixture
    ) -> None:
        generator = running(Script("x", ["yes"]), Script("y", ["no"]))

        def broken(outcome: JobOutcome) -> None:
            ends(outcome)
            raise OSError("disk full")

        generator.start("p", ASK, seed=7, finish=broken)
        until(lambda: generator.peek("p") is None)
        assert ends.texts() == ("yes", "no")
        assert "pair p: what came out could not be saved" in caplog.text and "disk full" in caplog.text
        again = Ends()
        assert run(generator, again).answers is not None, "it can be tried again, and the thread lives on"


class TestAnswersThatNobodyCouldCompare:
    def test_equal_ones_are_drawn_again_with_new_seeds(self, running: Running, ends: Ends) -> None:
        a, b = Script("x", ["yes"], ["yes"], ["maybe"]), Script("y", ["yes "], ["yes"], ["yes"])
        answers = run(running(a, b), ends, seed=3).answers
        assert ends.texts() == ("maybe", "yes")
        seeds = [seed for script in (a, b) for _, seed in script.calls]
        assert len(seeds) == len(set(seeds)) == 6
        assert answers is not None and [answers["a"].seed, answers["b"].seed] == [a.calls[2][1], b.calls[2][1]]

    def test_while_they_are_drawn_again_the_old_ones_are_not_shown(self, running: Running, ends: Ends) -> None:
        held = threading.Event()
        a, b = Script("x", ["yes"], [held, "maybe"]), Script("y", ["yes"], [held, "no"])
        generator = running(a, b)
        generator.start("p", ASK, seed=7, finish=ends)
        until(lambda: len(a.calls) == len(b.calls) == 2)
        assert generator.peek("p") == (Pane("", done=False), Pane("", done=False))
        held.set()
        assert ends.texts() == ("maybe", "no")

    @pytest.mark.parametrize(
        ("text_a", "text_b", "error"), [("yes", "yes", texts.SAME_ANSWERS), ("yes", " \n", texts.EMPTY_ANSWERS)]
    )
    def test_after_three_more_draws_that_is_said(
        self, running: Running, ends: Ends, text_a: str, text_b: str, error: str
    ) -> None:
        a, b = Script("x", [text_a]), Script("y", [text_b])
        assert run(running(a, b), ends) == JobOutcome(error=error)
        assert (len(a.calls), len(b.calls)) == (4, 4)

    def test_two_empty_ones_are_called_empty(self, running: Running, ends: Ends) -> None:
        assert run(running(Script("x", []), Script("y", [])), ends) == JobOutcome(error=texts.EMPTY_ANSWERS)


class TestFailures:
    @pytest.mark.parametrize("slot", [0, 1])
    def test_are_told_in_plain_words_and_logged_in_full(
        self, running: Running, ends: Ends, caplog: pytest.LogCaptureFixture, slot: int
    ) -> None:
        scripts = [Script("x", ["yes"]), Script("y", ["no"])]
        scripts[slot].takes = (["begun", VariantFailed(f"{URL} cannot be reached")],)
        outcome = run(running(*scripts), ends)
        assert outcome == JobOutcome(error=texts.MODEL_FAILED)
        assert not re.search(r"secret|http|10\.1|Traceback|Error", texts.MODEL_FAILED)
        assert f"{scripts[slot].info.name} did not answer" in caplog.text and URL in caplog.text
        assert "Traceback" not in caplog.text, "the reason says enough"

    def test_that_nobody_has_foreseen_leave_a_trace(
        self, running: Running, ends: Ends, caplog: pytest.LogCaptureFixture
    ) -> None:
        outcome = run(running(Script("x", ["begun", KeyError("weights")]), Script("y", ["no"])), ends)
        assert outcome == JobOutcome(error=texts.MODEL_FAILED)
        assert "secret-x did not answer: KeyError" in caplog.text
        assert "Traceback" in caplog.text and "weights" in caplog.text

    def test_that_the_annotator_can_mend_are_told(
        self, running: Running, ends: Ends, caplog: pytest.LogCaptureFixture
    ) -> None:
        error = Unanswerable("Too long. Begin a new conversation.")
        error.__cause__ = ValueError("97 tokens, 96 fit")
        outcome = run(running(Script("x", ["yes"]), Script("y", [error])), ends)
        assert outcome == JobOutcome(error="Too long. Begin a new conversation.")
        assert "secret-y did not answer" in caplog.text and "97 tokens, 96 fit" in caplog.text

    def test_stop_the_other_answer(self, running: Running, ends: Ends, caplog: pytest.LogCaptureFixture) -> None:
        fail, go_on = threading.Event(), threading.Event()
        b = Script("y", ["n", go_on, "no", "no, never"])
        generator = running(Script("x", ["begun", fail, VariantFailed("busy")]), b)
        generator.start("p", ASK, seed=7, finish=ends)
        until(lambda: generator.peek("p") == (Pane("begun", done=False), Pane("n", done=False)))
        fail.set()
        until(lambda: "secret-x did not answer" in caplog.text)
        go_on.set()
        assert ends.only() == JobOutcome(error=texts.MODEL_FAILED)
        assert b.ended == 0
        assert b.active == 0

    def test_an_answer_without_an_end_is_one(
        self, running: Running, ends: Ends, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert run(running(Script("x", ["yes"], finish=None), Script("y", ["no"])), ends) == JobOutcome(
            error=texts.MODEL_FAILED
        )
        assert "secret-x did not answer: VariantFailed: it stopped without an end" in caplog.text

    def test_one_pair_fails_alone(self, running: Running, ends: Ends) -> None:
        generator = running(Script("x", [VariantFailed("busy")], ["yes"]), Script("y", ["no"]))
        assert run(generator, ends, pair="p1").error == texts.MODEL_FAILED
        others = Ends()
        assert run(generator, others, pair="p2").answers is not None


class TestClosing:
    def test_every_job_ends_with_an_error_those_that_wait_too(self) -> None:
        held = threading.Event()
        a = Script("x", ["y", held, "yes"])
        generator = Generator((a, Script("y", ["no"])), workers=1)
        all_ends = [Ends() for _ in range(3)]
        for number, ends in enumerate(all_ends):
            generator.start(f"p{number}", ASK, seed=number, finish=ends)
        until(lambda: a.calls)
        closing = threading.Thread(target=generator.close)
        closing.start()
        with pytest.raises(Refused, match="being stopped"):
            until_refused(generator)
        until(lambda: all(job.stop.is_set() for job in list(generator._jobs.values())))
        held.set()
        closing.join(PATIENCE_SECONDS)
        assert not closing.is_alive()
        assert [ends.outcomes for ends in all_ends] == [[JobOutcome(error=texts.SERVER_STOPPED)]] * 3
        assert len(a.calls) == 1, "what waits is not begun any more"
        assert [generator.peek(f"p{number}") for number in range(3)] == [None] * 3

    def test_twice_is_once(self, running: Running, ends: Ends) -> None:
        generator = running(Script("x", ["yes"]), Script("y", ["no"]))
        run(generator, ends)
        generator.close()
        generator.close()
        with pytest.raises(Refused):
            generator.start("p", ASK, seed=7, finish=ends)


def until_refused(generator: Generator) -> None:
    """Start a pair that is running already until that is refused."""
    until(lambda: generator.start("p0", ASK, seed=0, finish=Ends()))


def test_seeds_differ_by_slot_and_draw_and_follow_from_the_pairs() -> None:
    seeds = {(seed, draw, slot): seed_of(seed, draw, slot) for seed in range(50) for draw in range(4) for slot in "ab"}  # type: ignore[arg-type]
    assert len(set(seeds.values())) == len(seeds)
    assert all(0 <= value < 2**31 for value in seeds.values())
    assert seeds == {key: seed_of(*key) for key in seeds}  # type: ignore[arg-type]


class TestTinyModels:
    """Two adapters on one backbone answer several pairs at once."""

    @pytest.fixture
    def variants(self, backbone: Backbone) -> Iterator[tuple[LocalVariant, LocalVariant]]:
        from tiny import add_role

        turns = ThreadPoolExecutor(max_workers=1)
        made = []
        for seed, role in enumerate(("policy", "other")):
            add_role(backbone, role, seed=seed)
            info = VariantInfo(role, role, None, None, {"temperature": 1.0, "max_new_tokens": 12})
            made.append(LocalVariant(info, backbone, role, turns))
        yield made[0], made[1]
        turns.shutdown()

    @pytest.mark.integration
    def test_answers_written_together_are_those_written_alone(
        self, running: Running, variants: tuple[LocalVariant, LocalVariant]
    ) -> None:
        generator = running(*variants, workers=4)
        prompts = [[Message(role="user", content=f"what is {number}")] for number in range(8)]
        all_ends = [Ends() for _ in prompts]
        for number, (prompt, ends) in enumerate(zip(prompts, all_ends, strict=True)):
            generator.start(f"p{number}", prompt, seed=number, finish=ends)
        compared = 0
        for prompt, ends in zip(prompts, all_ends, strict=True):
            answers = ends.only().answers
            assert answers is not None, ends.only().error
            for variant, written in zip(variants, answers.values(), strict=True):
                *_, last = variant.stream(prompt, seed=written.seed)
                assert (written.text, written.n_tokens, written.finish_reason) == (
                    last.text,
                    last.n_tokens,
                    last.finish_reason,
                )
                compared += 1
        assert compared == 16

    def test_the_same_seed_writes_the_same_pair(
        self, running: Running, variants: tuple[LocalVariant, LocalVariant]
    ) -> None:
        generator, pairs = running(*variants), []
        for number, seed in enumerate((1, 2, 1)):
            ends = Ends()
            generator.start(f"p{number}", ASK, seed=seed, finish=ends)
            pairs.append(ends.texts())
        assert pairs[0] == pairs[2] != pairs[1]
