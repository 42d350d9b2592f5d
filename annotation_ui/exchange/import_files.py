"""Brings prompts, pairs of answers and items with a known answer into a project's queue.

Prompts are read from any source that training reads them from; pairs, to be judged anew, from comparisons in any format
or from a file of one's own (``annotation_ui.exchange.pair_lines``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from alignment.data.jsonl_and_raw_rows import OnError, ReadReport
from alignment.data.readers import load_comparisons, load_prompts
from alignment.data.records import AnswerSource, Comparison, Dimension
from alignment.data.splits import dialogue_key
from alignment.errors import UserError
from alignment.files import resolve
from annotation_ui.desk.exercises import read_exercises
from annotation_ui.exchange.item_import import Filing
from annotation_ui.exchange.pair_lines import IMPORTED, attention_item, has_own_pairs, own_pairs
from annotation_ui.store.items import NewItem
from annotation_ui.store.pairs import NewAnswer, VariantInfo
from annotation_ui.vocabulary import SLOTS, Slot

# -- reading ----------------------------------------------------------------------------------------------------------


def read_prompts(
    source: str,
    dimension: Dimension,
    *,
    filing: Filing | None = None,
    format: str = "auto",
    on_error: OnError = "raise",
    limit: int | None = None,
) -> tuple[list[NewItem], ReadReport]:
    """Prompts for a queue, each once; those of this project keep their ids and kinds.

    Args:
        source: a file, or ``owner/name[:split]`` of a Hub dataset.
        dimension: of the project. Prompts that say that they are about another one are left out and counted.
        filing: part, batch and priority.
        format: a name from ``alignment.data.formats.row_format.FORMATS``, or ``auto``.
        on_error: what to do with malformed rows: raise, or leave out and count.
        limit: take so many at most.

    Raises:
        UserError: the source cannot be read, holds no prompt or a malformed row, or an id twice.
    """
    prompts, report = load_prompts(str(resolve(source)), dimension=dimension, format=format, on_error=on_error)
    wanted: list[tuple[object, NewItem]] = []
    for prompt in prompts:
        if prompt.dimension != dimension:
            report.skip(f"about {prompt.dimension}", prompt.id)
            continue
        wanted.append((dialogue_key(prompt.messages), NewItem(prompt.id, prompt.messages, kind=prompt.kind)))
    return _each_once(source, wanted, report, filing, limit)


def read_pairs(
    source: str,
    dimension: Dimension,
    *,
    filing: Filing | None = None,
    format: str = "auto",
    on_error: OnError = "raise",
    limit: int | None = None,
) -> tuple[list[NewItem], ReadReport]:
    """Pairs of answers to be judged, each once, and gold items.

    Which answer of a comparison gets which slot follows from its id, so that no slot holds the better ones.

    Args:
        source: a file, or ``owner/name[:split]`` of a Hub dataset.
        dimension: of the project. Pairs that say that they are about another one are left out and counted.
        filing: part, batch and priority.
        format: of comparisons: a name from ``alignment.data.formats.row_format.FORMATS``, or ``auto``.
        on_error: what to do with malformed rows: raise, or leave out and count.
        limit: take so many at most.

    Raises:
        UserError: the source cannot be read, holds no pair or a malformed row, or an id twice; names file and row.
    """
    path = str(resolve(source))
    if format == "auto" and has_own_pairs(path):
        report = ReadReport(source)
        items = list(own_pairs(path, dimension, report, on_error))
    else:
        comparisons, report = load_comparisons(path, dimension=dimension, format=format, on_error=on_error)
        items = [_pair_of(comparison) for comparison in comparisons]
    return _each_once(source, [(_said(item), item) for item in items], report, filing, limit)


def attention_items(dimension: Dimension, *, filing: Filing | None = None) -> list[NewItem]:
    """The attention checks that come with the app, as gold items."""
    return [(filing or Filing()).on(attention_item(exercise)) for exercise in read_exercises(dimension, "attention")]


def _pair_of(comparison: Comparison) -> NewItem:
    answers = [
        _sourced(comparison.chosen_text, comparison.chosen_source),
        _sourced(comparison.rejected_text, comparison.rejected_source),
    ]
    if hashlib.sha256(comparison.id.encode()).digest()[0] % 2:
        answers.reverse()
    slots: dict[Slot, NewAnswer] = dict(zip(SLOTS, answers, strict=True))
    return NewItem(comparison.id, comparison.prompt, answers=slots, kind=comparison.kind)


def _sourced(text: str, source: AnswerSource | None) -> NewAnswer:
    if source is None:
        return NewAnswer(text, IMPORTED)
    drawn = {"temperature": source.temperature, "max_new_tokens": source.max_new_tokens}
    sampling = {key: value for key, value in drawn.items() if value is not None}
    variant = VariantInfo(source.variant, source.checkpoint, sampling=sampling)
    return NewAnswer(text, variant, seed=source.seed, n_tokens=source.n_tokens, finish_reason=source.finish_reason)


def _said(new: NewItem) -> object:
    """What is to be judged, whichever slot an answer is in."""
    assert new.answers is not None
    return dialogue_key(new.messages), frozenset(given.text for given in new.answers.values())


def _each_once(
    source: str,
    wanted: Sequence[tuple[object, NewItem]],
    report: ReadReport,
    filing: Filing | None,
    limit: int | None,
) -> tuple[list[NewItem], ReadReport]:
    """The items without those that ask the same again, at most ``limit``; the rest is counted."""
    seen: set[object] = set()
    items: dict[str, NewItem] = {}
    for key, new in wanted:
        if key in seen:
            report.skip("there twice", new.id)
        elif limit is not None and len(items) >= limit:
            report.skip("beyond the limit", new.id)
        elif new.id in items:
            raise UserError(f"{source}: two different records have the id {new.id!r}. Give each an id of its own.")
        else:
            seen.add(key)
            items[new.id] = (filing or Filing()).on(new)
    report.read = len(items)
    if not items:
        raise UserError(f"there is nothing to import. {report.summary()}")
    return list(items.values()), report
