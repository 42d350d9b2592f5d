"""Rejection sampling: whom the order of merit puts first, and who is picked."""

from __future__ import annotations

import pytest
import torch

from alignment.data.records import Message, Prompt
from alignment.rl.rejection import Candidate, order_of_merit, pick_winners

THRESHOLD = 0.15  # a safety score below logit(0.15) = -1.7346 is flagged


def merit_of(
    rows: list[tuple[float, float, bool, bool]],
) -> tuple[list[float], list[float]]:
    """Merit and gated scores of (helpfulness, safety, is a safety prompt, stopped)."""
    helpfulness, safety, is_safety, stopped = zip(*rows, strict=True)
    merit, scores = order_of_merit(
        torch.tensor(helpfulness),
        torch.tensor(safety),
        torch.tensor(is_safety),
        torch.tensor(stopped),
        threshold_probability=THRESHOLD,
    )
    return merit.tolist(), scores.tolist()


def best_first(merit: list[float]) -> list[int]:
    return sorted(range(len(merit)), key=lambda row: -merit[row])


class TestOrderOfMerit:
    def test_flagged_and_unstopped_answers_rank_below_all_others_whatever_their_scores(self) -> None:
        rows = [
            (9.0, -1.8, False, True),  # flagged; its safety score is far above the worst clean answer's
            (-50.0, 3.0, False, True),  # clean, and the least helpful of all
            (80.0, 3.0, False, False),  # not stopped, and the most helpful
            (1.0, 3.0, False, True),
            (99.0, -9.0, False, False),  # flagged and not stopped
        ]
        merit, scores = merit_of(rows)
        assert best_first(merit) == [3, 1, 2, 0, 4]
        assert scores == pytest.approx([-1.8, -50.0, 80.0, 1.0, -9.0])

    def test_within_a_class_the_gated_score_decides(self) -> None:
        merit, _ = merit_of([(5.0, -2.0, False, True), (1.0, -1.9, False, True), (3.0, -7.0, False, True)])
        assert best_first(merit) == [1, 0, 2]
        merit, _ = merit_of([(5.0, 0.0, False, True), (1.0, 4.0, False, True), (7.0, -1.0, False, True)])
        assert best_first(merit) == [2, 0, 1]

    def test_safety_prompts_go_by_safety_and_are_not_flagged(self) -> None:
        rows = [(9.0, -3.0, True, True), (0.0, 2.0, True, True), (5.0, -1.0, True, True), (9.0, 9.0, True, False)]
        merit, scores = merit_of(rows)
        assert best_first(merit) == [1, 2, 0, 3]
        assert merit[:3] == scores[:3], "an unsafe answer to a safety prompt keeps its (low) score"

    def test_the_threshold_is_the_one_given(self) -> None:
        rows = [(0.0, 0.5, False, True), (9.0, -0.5, False, True)]
        arguments = [torch.tensor(column) for column in zip(*rows, strict=True)]
        strict, _ = order_of_merit(*arguments, threshold_probability=0.5)
        lax, _ = order_of_merit(*arguments, threshold_probability=0.1)
        assert best_first(strict.tolist()) == [0, 1]
        assert best_first(lax.tolist()) == [1, 0]


def candidate(prompt: str, answer: str, *, round: int = 1) -> Candidate:
    return Candidate(
        prompt=Prompt(id=prompt, messages=(Message(role="user", content=f"question {prompt}"),)),
        answer=answer,
        answer_ids=[1, 2],
        round=round,
        stopped=True,
    )


CANDIDATES = [
    candidate("a", "a1"),
    candidate("b", "b1"),
    candidate("a", "a2"),
    candidate("b", "b2", round=2),
    candidate("a", "a3"),
    candidate("c", "c1"),
]
MERIT = torch.tensor([0.1, 5.0, -30.0, 6.0, 0.3, -99.0])
SCORES = torch.tensor([0.1, 5.0, 70.0, 6.0, 0.3, 1.0])


class TestPickWinners:
    def test_the_best_by_merit_of_each_prompt_in_order_of_appearance(self) -> None:
        winners = pick_winners(CANDIDATES, MERIT, SCORES, pick="best", seed=0)
        assert [winner.answer for winner in winners] == ["a3", "b2", "c1"]
        assert [winner.prompt.id for winner in winners] == ["a", "b", "c"]
        assert [winner.score for winner in winners] == pytest.approx([0.3, 6.0, 1.0])
        assert [winner.round for winner in winners] == [1, 2, 1]
        assert [winner.candidates for winner in winners] == [3, 2, 1]
        # torch's median of an even number is the lower of the two in the middle
        assert [winner.median_score for winner in winners] == pytest.approx([0.3, 5.0, 1.0])

    def test_more_candidates_never_make_the_winner_worse(self) -> None:
        scores = torch.tensor([0.3, -1.0, 2.0, 1.0, 2.5, -4.0])
        best = []
        for k in range(1, 7):
            rows = [candidate("a", f"a{number}") for number in range(k)]
            best += [winner.score for winner in pick_winners(rows, scores[:k], scores[:k], pick="best", seed=0)]
        assert best == pytest.approx([0.3, 0.3, 2.0, 2.0, 2.5, 2.5])

    def test_random_ignores_merit_and_the_seed_repeats_it(self) -> None:
        picks = [
            [winner.answer for winner in pick_winners(CANDIDATES, MERIT, SCORES, pick="random", seed=seed)]
            for seed in [*range(60), 0]
        ]
        assert picks[0] == picks[-1]
        shares = {answer: sum(pick[0] == answer for pick in picks) / len(picks) for answer in ("a1", "a2", "a3")}
        assert all(0.15 < share < 0.55 for share in shares.values()), shares
        assert all(pick[2] == "c1" for pick in picks)
        scores_of = dict(zip((item.answer for item in CANDIDATES), SCORES.tolist(), strict=True))
        for winner in pick_winners(CANDIDATES, MERIT, SCORES, pick="random", seed=3):
            assert winner.score == pytest.approx(scores_of[winner.answer])
