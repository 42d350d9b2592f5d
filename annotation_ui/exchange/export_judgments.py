"""Writes what people said as the comparison records that ``stages.reward`` reads.

A file holds one line for each judgment that ``annotation_ui.exchange.selection`` lets through, in the order in which
they were made. The same store and filter give the same bytes. Beside it, ``FILE.manifest.json`` says what is in it,
and how many judgments were left out for which reason.

Two choices that are not obvious:

1. ``id`` is made from the comparison's random id. It is unique among stores, whose judgments are all numbered from 1,
   and an edited judgment keeps it: of two files exported at different times, one can see that it is the same one.
2. ``conversation_id`` is the key of the first user turn, as for comparisons from elsewhere: all turns of a
   conversation, all annotators of an item, and the same prompt in another project or queue stay on one side of a split.

The ``datasets`` library guesses columns from the first 10 MB of a file and fails on a later line that holds something
rare. So the manifest has the columns: ``Dataset.from_json(FILE, features=Features.from_dict(manifest["features"]))``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Connection, insert, select

from alignment.data.jsonl_and_raw_rows import write_jsonl
from alignment.data.records import (
    MARGINS,
    AnswerSource,
    Collected,
    Comparison,
    Message,
    Record,
    SafetyLabel,
    features_of,
)
from alignment.data.splits import first_turn_key
from alignment.errors import UserError
from alignment.files import write_json
from annotation_ui.exchange.selection import WITHDRAWN, ExportFilter, Preference, SelectedRow, Selection
from annotation_ui.store import tables
from annotation_ui.store.database import Store, now
from annotation_ui.store.pairs import load_messages
from annotation_ui.store.rows import AnswerRow, VariantRow
from annotation_ui.vocabulary import Slot


class Manifest(Record):
    """What is in an exported file.

    Attributes:
        schema_version: of the records.
        store_version: of the store's tables.
        file: its name.
        sha256: of its bytes.
        n: records in it.
        max_judgment_id: the last thing that had been said in the store when it was written.
        filter: what was asked for.
        left_out: reason -> judgments that the filter's scope has and the file has not.
        withdrawn: how many annotators have withdrawn their data, in a sentence.
        annotators: how many different ones are in it.
        projects: name -> records.
        guidelines_sha256: of all guidelines that were read for it.
        variants: who wrote the answers in it.
        features: its columns, for ``datasets.Features.from_dict``.
    """

    schema_version: int = 1
    store_version: int = tables.VERSION
    file: str
    sha256: str
    n: int
    max_judgment_id: int
    filter: dict[str, Any]
    left_out: dict[str, int]
    withdrawn: str
    annotators: int
    projects: dict[str, int]
    guidelines_sha256: tuple[str, ...]
    variants: tuple[dict[str, str | None], ...]
    features: dict[str, Any]


def manifest_file(target: Path) -> Path:
    """Where the manifest of an exported file is."""
    return target.with_name(f"{target.name}.manifest.json")


def export(store: Store, target: Path, filters: ExportFilter | None = None) -> Manifest:
    """Write the judgments that a filter lets through to ``target``, and a manifest beside it.

    Raises:
        UserError: no judgment is left, the filter names a project or annotator that is not there, or the file cannot
            be written; a file that was there before stays.
    """
    if target.suffix != ".jsonl":
        raise UserError(f"{target}: name a file that ends with .jsonl")
    with store.read() as connection:
        writing = _Writing.begin(connection, filters)
        records = writing.records()
        first = next(records, None)
        if first is None:
            reasons = ", ".join(f"{count} {reason}" for reason, count in writing.selection.left_out.items())
            raise UserError(f"there is no judgment to export (left out: {reasons or 'none'}); nothing is written")
        try:
            manifest = _write(writing, target, chain([first], records))
        except OSError as error:
            raise UserError(f"{target} cannot be written: {error.strerror}") from error
    _log(store, target, manifest)
    return manifest


def _write(writing: _Writing, target: Path, records: Iterable[Comparison]) -> Manifest:
    """Write both files aside, and put them in place once both are whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as aside:
        made = Path(aside) / target.name
        write_jsonl(made, records)
        manifest = writing.manifest(made)
        write_json(manifest_file(made), manifest.model_dump(mode="json"))
        os.replace(manifest_file(made), manifest_file(target))
        os.replace(made, target)
    return manifest


def comparisons(store: Store, filters: ExportFilter | None = None) -> tuple[list[Comparison], Counter[str]]:
    """The records that ``export`` would write, none where no judgment is left, and what is left out by reason."""
    with store.read() as connection:
        writing = _Writing.begin(connection, filters)
        return list(writing.records()), writing.selection.left_out


def _log(store: Store, target: Path, manifest: Manifest) -> None:
    values = {
        "max_judgment_id": manifest.max_judgment_id,
        "n": manifest.n,
        "sha256": manifest.sha256,
        "filter_json": json.dumps(manifest.filter, sort_keys=True),
        "path": str(target.resolve()),
        "created_at": now(),
    }
    with store.write() as connection:
        connection.execute(insert(tables.export_log).values(**values))


@dataclass
class _Writing:
    """Makes the records of a selection, and remembers what the manifest says of them."""

    selection: Selection
    variants: dict[str, VariantRow]
    projects: Counter[str] = field(default_factory=Counter)
    annotators: set[str] = field(default_factory=set)
    guidelines: set[str] = field(default_factory=set)
    written_by: set[str] = field(default_factory=set)

    @classmethod
    def begin(cls, connection: Connection, filters: ExportFilter | None) -> _Writing:
        """From here on, nothing that is said gets into the records."""
        selection = Selection.begin(connection, filters or ExportFilter())  # type: ignore[call-arg]
        variants = map(VariantRow._make, connection.execute(select(tables.variant)))
        return cls(selection, {variant.id: variant for variant in variants})

    def records(self) -> Iterator[Comparison]:
        """One record for each judgment."""
        for row, preference in self.selection.judgments():
            self.projects[row.project] += 1
            self.annotators.add(row.judgment.annotator_id)
            self.guidelines.add(row.judgment.guidelines_sha256)
            self.written_by |= {answer.variant_id for answer in row.answers.values()}
            yield self._record(row, preference)

    def _record(self, row: SelectedRow, preference: Preference) -> Comparison:
        """The record of one judgment."""
        prompt, margins, safety = load_messages(row.prompt_json), self.selection.filters.margins, preference.safety
        chosen, rejected = row.answers[preference.slot], row.answers["b" if preference.slot == "a" else "a"]
        return Comparison(
            id=f"jdg-{row.judgment.comparison_id.removeprefix('cmp_')}",
            prompt=prompt,
            chosen=(Message(role="assistant", content=chosen.text),),
            rejected=(Message(role="assistant", content=rejected.text),),
            dimension=row.dimension,
            grade=preference.grade,
            safety=None if safety is None else SafetyLabel(bin=safety),
            annotator_id=row.judgment.annotator_id,
            conversation_id=first_turn_key(prompt),
            kind=row.item_kind,
            batch=row.batch,
            chosen_source=self._source(chosen),
            rejected_source=self._source(rejected),
            turn=row.turn,
            margin=None if margins == "none" else MARGINS[margins][preference.grade],
            collected=self._collected(row, preference.slot),
        )

    def _source(self, answer: AnswerRow) -> AnswerSource:
        sampling, variant = json.loads(answer.sampling_json), self.variants[answer.variant_id]
        return AnswerSource(
            variant=variant.name,
            checkpoint=variant.checkpoint,
            temperature=sampling.get("temperature"),
            finish_reason=answer.finish_reason,
            n_tokens=answer.n_tokens,
            seed=answer.seed,
            max_new_tokens=sampling.get("max_new_tokens"),
        )

    def _collected(self, row: SelectedRow, chosen: Slot) -> Collected:
        judgment = row.judgment
        return Collected(
            project=row.project,
            item_id=row.item_id,
            comparison_id=judgment.comparison_id,
            chosen_was_left=chosen == row.left_slot,
            is_gold=row.source == "gold",
            guidelines_sha256=judgment.guidelines_sha256,
            app_version=judgment.app_version,
            judged_at=judgment.created_at,
            shown_at=row.first_shown_at,
            active_ms=judgment.active_ms,
            input_method=judgment.input_method,
            flags=row.flags,
            note=judgment.note if self.selection.filters.with_notes else None,
        )

    def manifest(self, written: Path) -> Manifest:
        """What to say of the file once all records are in it."""
        filters, left_out = self.selection.filters, self.selection.left_out
        kept = ("name", "checkpoint", "weights_sha256", "chat_template_sha256")
        wrote = [{name: getattr(self.variants[key], name) for name in kept} for key in sorted(self.written_by)]
        with written.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        # The columns are those of the records, but for what the filter leaves out.
        columns = features_of(Comparison)
        if filters.margins == "none":
            del columns["margin"]
        gone = len(self.selection.withdrawn)
        return Manifest(
            file=written.name,
            sha256=sha256,
            n=self.projects.total(),
            max_judgment_id=self.selection.newest,
            filter=filters.model_dump(mode="json"),
            left_out=dict(sorted(left_out.items())),
            withdrawn=f"Annotators who have withdrawn their data: {gone}; "
            f"judgments left out for it: {left_out[WITHDRAWN]}.",
            annotators=len(self.annotators),
            projects=dict(sorted(self.projects.items())),
            guidelines_sha256=tuple(sorted(self.guidelines)),
            variants=tuple(wrote),
            features=columns,
        )
