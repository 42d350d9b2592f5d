"""Any reward models on any comparisons: each reads each set, and all are measured on the pairs that all can read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from alignment.data.encoded_dialogues import EncodedAnswer, Encoder, without_marks
from alignment.data.jsonl_and_raw_rows import ReadReport
from alignment.data.records import Comparison
from alignment.errors import UserError
from alignment.figures.pair_accuracy import Pairs, ScoredPair
from alignment.figures.reward_model_figures import side_by_side
from alignment.models.scorers.load_reward_models import Reencoded
from alignment.models.scorers.scorer_protocol import RewardScorer
from alignment.reward.encoded_pairs import EncodedPair, encode_pairs
from alignment.reward.pair_scoring import dialogues_of, score_pairs

OnAnswers = Callable[[int, int], None]


@dataclass(frozen=True)
class ComparisonSet:
    """Comparisons to measure on; with their tokens once they are encoded."""

    name: str
    source: str
    comparisons: list[Comparison]
    left_out: dict[str, int]
    pairs: Sequence[EncodedPair] = ()
    report: ReadReport | None = None
    """What reading the file left out."""


class Reader(NamedTuple):
    """Whose tokenizer encodes the text, and how a model is loaded beside it."""

    encoder: Encoder
    context_tokens: int
    load: Callable[[str, Path], RewardScorer]
    """From a name of its own and a folder."""


def score_models(
    reader: Reader,
    folders: Mapping[str, Path],
    sets: Sequence[ComparisonSet],
    *,
    batch_size: int,
    skip_too_long: bool,
    on_answers: OnAnswers,
) -> tuple[dict[str, dict[str, list[ScoredPair]]], list[ComparisonSet]]:
    """Model -> set -> its scored pairs, those that every model can read; and the sets with what was left out.

    Args:
        reader: loads the models, one after the other.
        folders: name -> folder of each model.
        sets: encoded comparisons.
        batch_size: answers per batch.
        skip_too_long: leave pairs out that a model cannot read, and count them; else they are an error.
        on_answers: called with how many answers were scored, and of how many.

    Raises:
        UserError: a model cannot read a pair and ``skip_too_long`` is off, or no pair of a set can be read by all.
    """
    scored: dict[str, dict[str, dict[int, ScoredPair]]] = {}
    total, before = 2 * len(folders) * sum(len(item.pairs) for item in sets), 0
    for number, (model_name, path) in enumerate(folders.items()):
        model = reader.load(f"evaluated_{number}", path)
        scored[model_name] = {}
        for item in sets:
            place = _Progress(before, total, on_answers)
            found = _score_readable(model, item, batch_size=batch_size, skip_too_long=skip_too_long, count=place)
            scored[model_name][item.name] = found
            before += 2 * len(item.pairs)
            on_answers(before, total)
    return _common(scored, sets)


def assemble_evaluation(
    scored: Mapping[str, Mapping[str, Pairs]],
    folders: Mapping[str, Path],
    sets: Sequence[ComparisonSet],
    *,
    seed: int,
    threshold_probability: float,
) -> dict[str, Any]:
    """What ``reward_models.json`` holds: figures of every model on every set, the cross-tables, and agreement.

    Args:
        scored: model -> set -> its scored pairs, from ``score_models``.
        folders: name -> folder of each model.
        sets: what was scored, with what was left out, from ``score_models``.
        seed: of the bootstrap.
        threshold_probability: the gate's; an answer whose probability of being safe is below it is flagged.
    """
    return {
        "schema_version": 1,
        "seed": seed,
        "threshold_probability": threshold_probability,
        "models": {name: str(path) for name, path in folders.items()},
        "test_sets": {
            item.name: {"source": item.source, "n": len(item.comparisons), "left_out": item.left_out} for item in sets
        },
        **side_by_side(scored, seed=seed, threshold_probability=threshold_probability),
    }


class _Progress:
    """Turns numbers of answers in batches into how many are done of all."""

    def __init__(self, done: int, total: int, on_answers: OnAnswers) -> None:
        self.done, self.total, self.on_answers = done, total, on_answers

    def __call__(self, n_answers: int) -> None:
        self.done += n_answers
        self.on_answers(self.done, self.total)


def _score_readable(
    model: RewardScorer, item: ComparisonSet, *, batch_size: int, skip_too_long: bool, count: Callable[[int], None]
) -> dict[int, ScoredPair]:
    """Index in the set -> scored pair, of the pairs that the model can read."""
    dialogues, n = dialogues_of(item.pairs, item.comparisons), len(item.pairs)
    unread = {place % n for place, dialogue in enumerate(dialogues) if not _can_read(model, dialogue)}
    if unread and not skip_too_long:
        first = item.comparisons[min(unread)].id
        raise UserError(
            f"{len(unread)} comparisons of {item.name}, the first {first}, are too long for the reward model in "
            f"{model.folders[0]}, or hold text that its template uses. Pass data.too_long=skip to leave such pairs out."
        )
    kept = [index for index in range(n) if index not in unread]
    pairs, comparisons = [item.pairs[index] for index in kept], [item.comparisons[index] for index in kept]
    return dict(zip(kept, score_pairs(model, pairs, comparisons, batch_size, on_batch=count), strict=True))


def _can_read(model: RewardScorer, dialogue: EncodedAnswer) -> bool:
    """Whether a model beside the shared base gets the answer and not an empty one, as PPO would give it."""
    if not isinstance(model, Reencoded):
        return True
    try:
        found = model.encode_again(dialogue)
    except UserError:
        return False
    return found.answer_ids != model.encoder.encode_answer(dialogue.messages, "").answer_ids


def _common(
    scored: Mapping[str, Mapping[str, Mapping[int, ScoredPair]]], sets: Sequence[ComparisonSet]
) -> tuple[dict[str, dict[str, list[ScoredPair]]], list[ComparisonSet]]:
    """Only the pairs that all models have read, and the sets with the others counted."""
    common: dict[str, dict[str, list[ScoredPair]]] = {model: {} for model in scored}
    left: list[ComparisonSet] = []
    for item in sets:
        kept = [
            index for index in range(len(item.pairs)) if all(index in found[item.name] for found in scored.values())
        ]
        if not kept:
            raise UserError(f"{item.name}: no comparison that all of the models can read")
        for model, found in scored.items():
            common[model][item.name] = [found[item.name][index] for index in kept]
        counted = {**item.left_out, "unreadable for a model": len(item.pairs) - len(kept)}
        left.append(replace(item, comparisons=[item.comparisons[index] for index in kept], left_out=counted))
    return common, left


def encode_set(item: ComparisonSet, reader: Reader, *, skip_too_long: bool, on_error: str) -> ComparisonSet:
    """The set with its tokens; pairs beyond the context, or with a mark of the template, are an error or left out.

    Args:
        item: the set.
        reader: whose tokenizer and context.
        skip_too_long: leave pairs beyond the context out.
        on_error: ``skip`` leaves pairs with a mark out.
    """
    readable, marked = without_marks(item.comparisons, reader.encoder, on_error=on_error)
    pairs, kept, too_long = encode_pairs(
        readable,
        reader.encoder,
        margin="none",
        max_length_tokens=reader.context_tokens,
        skip_too_long=skip_too_long,
    )
    return replace(item, comparisons=kept, pairs=pairs, left_out={**item.left_out, **marked, "too long": too_long})
