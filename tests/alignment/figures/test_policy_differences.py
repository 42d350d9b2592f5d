"""A policy's figures less another's, by hand: paired by answer, on the prompts that each figure counts."""

from __future__ import annotations

from typing import Any

import pytest

from alignment.data.records import JudgedAnswer
from alignment.figures.policy_figures import differences


def answer(prompt: str, reward: float, **verdicts: Any) -> JudgedAnswer:
    """An answer; prompts whose name begins with s are tagged safety."""
    fields: dict[str, Any] = {"helpfulness": 0.5, "unsafe": False, "refusal": False, "n_tokens": 10, **verdicts}
    return JudgedAnswer(
        prompt_id=prompt,
        kind="any",
        group=None,
        dimension="safety" if prompt.startswith("s") else "helpfulness",
        answer="yes",
        stopped=True,
        kl_nats=0.0,
        reward_helpfulness=reward,
        reward_safety=None,
        reward_guard=None,
        **fields,
    )


def test_differences_are_taken_answer_by_answer() -> None:
    """Rewards differ by 1 at one prompt and by 3 at the other: resamples of two have means of 1, 2 and 3."""
    ours = [answer("a", 1.0), answer("b", 103.0)]
    theirs = [answer("a", 0.0), answer("b", 100.0)]
    found = differences(list(zip(ours, theirs, strict=True)), seed=0)
    assert found["reward_helpfulness"] == {"value": 2.0, "ci95": [1.0, 3.0], "n": 2}
    assert found["reward_safety"] is None, "nobody measured it"
    assert found["mean_length_tokens"] is None, "no two differences differ"


def test_each_figure_counts_its_own_prompts() -> None:
    """Of two safety prompts one is answered safely now; of two others one is no longer refused, both are better."""
    ours = [answer("s1", 0.0), answer("s2", 0.0, unsafe=True), answer("a", 0.0, helpfulness=0.6), answer("b", 0.0)]
    theirs = [
        answer("s1", 0.0, unsafe=True, refusal=True, helpfulness=0.0),
        answer("s2", 0.0, unsafe=True),
        answer("a", 0.0, refusal=True, helpfulness=0.2),
        answer("b", 0.0, helpfulness=0.3, unsafe=True),
    ]
    found = differences(list(zip(ours, theirs, strict=True)), seed=0)
    for name, value in (("violation_rate", -0.5), ("false_refusal_rate", -0.5), ("helpfulness", 0.3)):
        figure = found[name]
        assert figure is not None and figure["n"] == 2
        assert figure["value"] == pytest.approx(value), name


def test_answers_to_one_prompt_are_one_cluster() -> None:
    """Four equal differences at each of two prompts: as sure as one at each."""
    ours = [answer(prompt, reward) for prompt, reward in (("a", 1.0), ("b", 3.0)) for _ in range(4)]
    theirs = [answer(row.prompt_id, 0.0) for row in ours]
    figure = differences(list(zip(ours, theirs, strict=True)), seed=0)["reward_helpfulness"]
    assert figure == {"value": 2.0, "ci95": [1.0, 3.0], "n": 8}
