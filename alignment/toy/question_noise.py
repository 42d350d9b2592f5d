"""The toy base model: a tiny Llama, pretrained on the toy corpus from scratch.

A plain loop: at this size TRL's trainer would spend more time on itself than on the model. Transcripts in the corpus
(``question: ...`` / ``answer: ...`` lines) are shown to the model in the chat format, as today's base models have seen
plenty of chats; prose is shown as it is. Nothing is labelled good or bad. Questions are read, not learned.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alignment.toy.toy_tokenizer import ASSISTANT, SPECIAL_TOKENS, USER

NOISY_ROWS = 0.5
"""Share of the documents whose questions have words replaced; and, drawn apart, of those that get extra ones."""


def in_question(token_ids: Tensor) -> Tensor:
    """Which tokens (B, T) are words of a question: those between a question's role token and an answer's."""
    is_open = (token_ids == USER).cumsum(1) > (token_ids == ASSISTANT).cumsum(1)
    return is_open & (token_ids != USER)


def with_question_noise(token_ids: Tensor, share: float, vocabulary_size: int) -> Tensor:
    """Token ids (B, T); in about every second row, a share of the questions' words are random ones instead.

    A model this small has seen few words, and one that it does not know in a question changes what it takes the whole
    question to be. Random words in their place teach it to go by the others; the clean rows teach it the facts.
    """
    is_noisy = torch.rand(token_ids.shape[0], 1, device=token_ids.device) < NOISY_ROWS
    chosen = in_question(token_ids) & is_noisy & (torch.rand(token_ids.shape, device=token_ids.device) < share)
    return torch.where(chosen, torch.randint_like(token_ids, len(SPECIAL_TOKENS), vocabulary_size), token_ids)


def with_extra_words(ids: list[int], most: int, vocabulary_size: int) -> list[int]:
    """A document with 0 to ``most`` random words before or after each of its questions.

    The corpus words its questions in a few ways, which end with what is asked about or soon after. Whoever asks
    otherwise puts words there that the model has not seen in such a place.
    """
    longer: list[int] = []
    question_starts = 0
    for token in ids:
        if token == ASSISTANT:
            words = torch.randint(len(SPECIAL_TOKENS), vocabulary_size, (int(torch.randint(most + 1, ())),)).tolist()
            place = len(longer) if torch.rand(()) < 0.5 else question_starts
            longer[place:place] = words
        longer.append(token)
        if token == USER:
            question_starts = len(longer)
    return longer
