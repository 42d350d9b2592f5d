"""Pretraining of the toy base: what noise on questions touches, and how the learning rate runs."""

from __future__ import annotations

import pytest
import torch

from alignment.recipe import BaseSection
from alignment.toy.base_model import ASSISTANT, SPECIAL_TOKENS, USER, _schedule, with_question_noise

VOCABULARY = 500
BOS, END, PAD = (SPECIAL_TOKENS.index(name) for name in ("<|begin|>", "<|end|>", "<|pad|>"))


def dialogues(rows: int, words: int = 40) -> torch.Tensor:
    """Question, answer, question, answer, padding; words are 100, ..., 139 everywhere."""
    text = list(range(100, 100 + words))
    row = [BOS, USER, *text, ASSISTANT, *text, END, USER, *text, ASSISTANT, *text, END, PAD, PAD]
    return torch.tensor([row] * rows)


class TestQuestionNoise:
    def test_only_words_of_questions_are_replaced_and_by_words(self) -> None:
        ids = dialogues(50)
        torch.manual_seed(0)
        noisy = with_question_noise(ids, 1.0, VOCABULARY)
        changed = (noisy != ids).any(0)
        question = torch.zeros(ids.shape[1], dtype=torch.bool)
        question[2:42] = question[85:125] = True
        assert changed.tolist() == question.tolist()
        assert noisy.min() == ids.min() and len(SPECIAL_TOKENS) <= noisy[:, question].min()
        assert noisy.max() < VOCABULARY

    @pytest.mark.parametrize("share", [0.0, 0.15, 0.6])
    def test_the_share_is_the_one_asked_for(self, share: float) -> None:
        ids = dialogues(100)
        torch.manual_seed(1)
        changed = (with_question_noise(ids, share, VOCABULARY) != ids).sum().item()
        draws = 100 * 80
        # A replacement is the same word by chance once in 494 times; four standard deviations.
        assert abs(changed - draws * share * 493 / 494) <= 4 * (draws * share * (1 - share)) ** 0.5


def test_the_rate_rises_to_its_peak_and_falls_to_nearly_nothing() -> None:
    settings = BaseSection(steps=100, warmup_steps=10)  # type: ignore[call-arg]
    rates = [_schedule(step, settings) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert rates[9] == max(rates) == 1
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] == pytest.approx(1 / 91)
