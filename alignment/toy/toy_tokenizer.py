"""The toy base model's tokenizer: a byte-level BPE trained on the toy corpus, and documents as its tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from alignment.errors import UserError

PAD, BOS, EOS = "<|pad|>", "<|begin|>", "<|end|>"
SPECIAL_TOKENS = (PAD, BOS, EOS, "<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TOKEN_ID = {token: index for index, token in enumerate(SPECIAL_TOKENS)}
USER, ASSISTANT = TOKEN_ID["<|user|>"], TOKEN_ID["<|assistant|>"]
_TURN = re.compile(r"^(question|answer): ", flags=re.MULTILINE)
_ROLE_TOKEN = {"question": "<|user|>", "answer": "<|assistant|>"}


def train_tokenizer(texts: Sequence[str], *, vocabulary_size: int, context_tokens: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE (any text can be encoded) with the chat format's special tokens."""
    # The vocabulary must hold at least every byte and the special tokens.
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocabulary_size < len(alphabet) + len(SPECIAL_TOKENS):
        raise UserError(
            f"base.vocabulary_size={vocabulary_size} is too small: {len(alphabet) + len(SPECIAL_TOKENS)} at least"
        )
    # Learn the merges from the texts.
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    # Wrap it for Transformers, with the special tokens and the chat template.
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        additional_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
        model_max_length=context_tokens,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def encode_document(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Token ids of one document: prose, or a transcript with role tokens in place of its labels.

    Raises:
        UserError: questions and answers do not take turns, a question first and an answer last.
    """
    ids: list[int] = [TOKEN_ID[BOS]]
    pieces = _TURN.split(text)
    turns = pieces[1::2]
    if turns != ["question", "answer"] * (len(turns) // 2) or (not turns and not text.strip()):
        raise UserError(f"base.corpus: neither prose nor questions that are each followed by an answer: {text[:80]!r}")
    if pieces[0].strip():
        ids += tokenizer.encode(pieces[0].strip(), add_special_tokens=False)
    for speaker, words in zip(turns, pieces[2::2], strict=True):
        ids.append(TOKEN_ID[_ROLE_TOKEN[speaker]])
        ids += tokenizer.encode(words.strip(), add_special_tokens=False)
        if speaker == "answer":
            ids.append(TOKEN_ID[EOS])
    if len(pieces) == 1:
        ids.append(TOKEN_ID[EOS])
    return ids
