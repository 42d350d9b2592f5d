"""Pretraining of the toy base: what noise on questions touches, what is learned, and how the learning rate runs."""

from __future__ import annotations

import pytest
import torch

from alignment.errors import UserError
from alignment.settings.sections import BaseSection
from alignment.toy.toy_base_model import _schedule, learned_positions, with_extra_words, with_question_noise
from alignment.toy.toy_tokenizer import ASSISTANT, SPECIAL_TOKENS, USER, encode_document, train_tokenizer

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
        rows = (noisy != ids).any(1)
        assert 10 < rows.sum() < 40, "half of the rows stay clean"
        assert ((noisy != ids).sum(1)[rows] > 70).all()
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
        noisy = with_question_noise(ids, share, VOCABULARY) != ids
        changed = noisy.sum().item()
        draws = 80 * noisy.any(1).sum().item()
        # A replacement is the same word by chance once in 494 times; four standard deviations.
        assert abs(changed - draws * share * 493 / 494) <= 4 * (draws * share * (1 - share)) ** 0.5


def test_extra_words_stand_at_either_end_of_a_question_and_nowhere_else() -> None:
    dialogue = dialogues(1, words=3)[0].tolist()
    torch.manual_seed(0)
    words, answer = [100, 101, 102], [ASSISTANT, 100, 101, 102, END]
    counts, ends = set(), set()
    for _ in range(200):
        longer = with_extra_words(dialogue, 4, VOCABULARY)
        assert longer.count(USER) == longer.count(ASSISTANT) == 2
        assert longer[:2] == [BOS, USER] and longer[-7:] == [*answer, PAD, PAD]
        first, second = (place for place, token in enumerate(longer) if token == ASSISTANT)
        assert longer[first : first + 6] == [*answer, USER]
        for question in (longer[2:first], longer[first + 6 : second]):
            assert question[-3:] == words or question[:3] == words
            assert all(token >= len(SPECIAL_TOKENS) for token in question)
            counts.add(len(question) - 3)
            ends.add(question[:3] == words)
    assert counts == {0, 1, 2, 3, 4}
    assert ends == {True, False}
    assert with_extra_words(dialogue, 0, VOCABULARY) == dialogue
    assert with_extra_words([BOS, 70, END], 4, VOCABULARY) == [BOS, 70, END]


def test_answers_their_ends_and_prose_are_learned_and_nothing_else() -> None:
    dialogue = [BOS, USER, 50, 51, ASSISTANT, 60, 61, END, USER, 52, ASSISTANT, 62, END]
    prose = [BOS, 70, 71, 72, END] + [PAD] * 8
    learned = learned_positions(torch.tensor([dialogue, prose]), torch.tensor([13, 5]))
    next_tokens = torch.tensor([dialogue, prose]).roll(-1, dims=1)
    assert next_tokens[0][learned[0]].tolist() == [60, 61, END, 62, END]
    assert next_tokens[1][learned[1]].tolist() == [70, 71, 72, END]


def test_the_rate_rises_to_its_peak_and_falls_to_nearly_nothing() -> None:
    settings = BaseSection(steps=100, warmup_steps=10)  # type: ignore[call-arg]
    rates = [_schedule(step, settings) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert rates[9] == max(rates) == 1
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] == pytest.approx(1 / 91)


@pytest.mark.parametrize(
    "text",
    [
        "question: Why?\nquestion: Really?",
        "question: Why?\nquestion: Really?\nanswer: Yes.",
        "answer: Yes.",
        "question: Why?\nanswer: So.\nanswer: Yes.",
        "question: Why?\nanswer: So.\nquestion: Really?",
        " \n",
    ],
)
def test_a_document_whose_speakers_do_not_take_turns_is_refused(text: str) -> None:
    texts = ["question: Why?\nanswer: Because.", "Some prose."]
    tokenizer = train_tokenizer(texts, vocabulary_size=300, context_tokens=64)
    assert len(encode_document(tokenizer, texts[0])) > 4 and len(encode_document(tokenizer, texts[1])) > 2
    with pytest.raises(UserError, match="neither prose nor questions"):
        encode_document(tokenizer, text)
