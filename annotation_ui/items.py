"""Projects, and the prompts that wait in their queues, with or without answers that were sampled before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, and_, func, insert, select, update

from alignment.data.records import Dialogue, Dimension, Message, dialogue_key
from alignment.errors import UserError
from annotation_ui import assignments
from annotation_ui.schema import answer, comparison, guideline, item, pair, project, variant
from annotation_ui.session import Slot, storable
from annotation_ui.settings import ProjectSettings
from annotation_ui.store import new_id, now

Source = Literal["queue", "annotator", "gold", "training", "qualification"]
Part = Literal["train", "heldout"]
_IDS_PER_QUERY = 500


@dataclass(frozen=True)
class VariantInfo:
    """Who wrote an answer, and how it was drawn. Annotators never see it."""

    name: str
    checkpoint: str | None = None
    weights_sha256: str | None = None
    chat_template_sha256: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NewAnswer:
    """An answer for the store."""

    text: str
    variant: VariantInfo
    seed: int | None = None
    n_tokens: int | None = None
    finish_reason: Literal["stop", "length"] | None = None
    generation_ms: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", storable(self.text))


@dataclass(frozen=True)
class NewItem:
    """A prompt for a queue; as in its answers, what a database refuses becomes replacement characters.

    Attributes:
        id: unique in its project; adding the same one again does nothing.
        messages: the dialogue, ending with a user turn.
        answers: in slots a and b, where they were sampled before.
        source: where it comes from.
        part: which side of a train/held-out split its judgments are for.
        kind: only for reporting.
        batch: default: the project's.
        priority: higher ones first.
        expected: the known answer of gold items, training examples and test questions.
    """

    id: str
    messages: Dialogue
    answers: Mapping[Slot, NewAnswer] | None = None
    source: Source = "queue"
    part: Part = "train"
    kind: str | None = None
    batch: str | None = None
    priority: int = 0
    expected: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        messages = tuple(Message(role=said.role, content=storable(said.content)) for said in self.messages)
        object.__setattr__(self, "messages", messages)
        object.__setattr__(self, "id", storable(self.id))
        object.__setattr__(self, "kind", self.kind and storable(self.kind))


def dump_messages(messages: Iterable[Message]) -> str:
    """Messages as JSON text."""
    return json.dumps([message.model_dump() for message in messages], ensure_ascii=False)


def load_messages(text: str) -> Dialogue:
    """Messages from JSON text."""
    return tuple(Message(**message) for message in json.loads(text))


# -- projects ---------------------------------------------------------------------------------------------------------


def built_in_guidelines(name: str) -> str:
    """A Markdown text that comes with the app: ``helpfulness``, ``safety`` or ``content_warning``."""
    return (resources.files("annotation_ui") / "guidelines" / f"{name}.md").read_text(encoding="utf-8")


def guidelines_of(settings: ProjectSettings) -> str:
    """The Markdown that annotators of a project read.

    Raises:
        UserError: the file that the settings name cannot be read.
    """
    if settings.guidelines is None:
        return built_in_guidelines(settings.dimension)
    try:
        return Path(settings.guidelines).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"projects.{settings.name}.guidelines={settings.guidelines} cannot be read: {error}") from error


def keep_project(connection: Connection, settings: ProjectSettings, *, change: bool = True) -> str:
    """Make a project, or bring the one of that name up to date with its settings; returns its id.

    Args:
        connection: of a write.
        settings: of the project.
        change: whether one that is there is brought up to date, with those items of its queue that have the overlap
            which it had; otherwise it stays as its server has it.

    Raises:
        UserError: it is about another dimension and has comparisons already.
    """
    row = connection.execute(select(project).where(project.c.name == settings.name)).one_or_none()
    if row is not None and not change:
        return str(row.id)
    markdown = guidelines_of(settings)
    sha256 = hashlib.sha256(markdown.encode()).hexdigest()
    if connection.execute(select(guideline).where(guideline.c.sha256 == sha256)).one_or_none() is None:
        connection.execute(insert(guideline).values(sha256=sha256, markdown=markdown))
    kept = ("title", "dimension", "batch", "mode", "overlap", "max_turns", "ask_safety")
    values = {key: getattr(settings, key) for key in kept}
    values |= {"guidelines_sha256": sha256, "config_json": settings.model_dump_json()}
    if row is None:
        made = new_id("prj")
        connection.execute(insert(project).values(id=made, name=settings.name, created_at=now(), **values))
        return made
    shown = connection.execute(select(comparison.c.id).where(comparison.c.project_id == row.id).limit(1)).first()
    if shown is not None and row.dimension != settings.dimension:
        raise UserError(f"project {settings.name} is about {row.dimension} and was worked on; name a new one")
    connection.execute(update(project).where(project.c.id == row.id).values(**values))
    if row.overlap != settings.overlap:
        of_project = and_(item.c.project_id == row.id, item.c.overlap == row.overlap)
        assignments.set_overlap(connection, of_project, settings.overlap)
    return str(row.id)


def project_named(connection: Connection, name: str) -> Any:
    """The row of a project; raise ``UserError`` listing those there are."""
    row = connection.execute(select(project).where(project.c.name == name)).one_or_none()
    if row is None:
        known = connection.execute(select(project.c.name).order_by(project.c.name)).scalars().all()
        raise UserError(f"there is no project {name!r}; there are: {', '.join(known) or 'none yet'}")
    return row


def project_about(connection: Connection, names: Iterable[str], dimension: Dimension) -> Any:
    """The first of some projects that is about a dimension and has a queue.

    Raises:
        UserError: none of them is and has.
    """
    for name in names:
        row = project_named(connection, name)
        if row.dimension == dimension and row.mode != "free":
            return row
    raise UserError(
        f"no project of the annotation settings is about {dimension} and has a queue (mode: queue or both); "
        "add one under projects:"
    )


# -- items ------------------------------------------------------------------------------------------------------------


def add_items(connection: Connection, project_row: Any, items: Iterable[NewItem], *, overlap: int | None = None) -> int:
    """Put items into a project's queue; those whose id is there already stay as they are. Returns how many are new.

    Args:
        connection: of a write.
        project_row: the project.
        items: what to add, in order.
        overlap: annotators per item; default: the project's.
    """
    new_items = list(items)
    known = _known(connection, [f"{project_row.name}/{new.id}" for new in new_items])
    place = connection.execute(select(func.coalesce(func.max(item.c.place), 0))).scalar_one()
    added = 0
    for new in new_items:
        identifier = f"{project_row.name}/{new.id}"
        if identifier in known:
            continue
        known.add(identifier)
        added += 1
        _add_item(connection, project_row, new, identifier, place + added, overlap or project_row.overlap)
    return added


def _known(connection: Connection, identifiers: Sequence[str]) -> set[str]:
    """Those of the ids that are there already."""
    found: set[str] = set()
    for start in range(0, len(identifiers), _IDS_PER_QUERY):
        some = item.c.id.in_(identifiers[start : start + _IDS_PER_QUERY])
        found |= set(connection.execute(select(item.c.id).where(some)).scalars())
    return found


def _add_item(
    connection: Connection, project_row: Any, new: NewItem, identifier: str, place: int, overlap: int
) -> None:
    connection.execute(
        insert(item).values(
            id=identifier,
            project_id=project_row.id,
            source=new.source,
            part=new.part,
            batch=new.batch or project_row.batch,
            kind=new.kind,
            messages_json=dump_messages(new.messages),
            prompt_sha256=dialogue_key(new.messages),
            priority=new.priority,
            place=place,
            overlap=overlap,
            # Gold items go to everybody; those of one annotator never stand in the queue.
            remaining={"queue": overlap, "gold": 2**30}.get(new.source, 0),
            expected_json=None if new.expected is None else json.dumps(new.expected),
            created_at=now(),
        )
    )
    if new.answers is not None:
        pair_id = add_pair(connection, project_row.id, identifier, new.messages, seed=None)
        complete_pair(connection, pair_id, new.answers)


def has_items(connection: Connection, project_id: str) -> bool:
    """Whether anything was ever put into a project's queue."""
    queued = select(item.c.id).where(item.c.project_id == project_id, item.c.source == "queue")
    return connection.execute(queued.limit(1)).first() is not None


# -- pairs ------------------------------------------------------------------------------------------------------------


def add_pair(
    connection: Connection, project_id: str, item_id: str, messages: Iterable[Message], *, seed: int | None
) -> str:
    """A prompt that waits for its two answers; returns the pair's id."""
    prompt = tuple(messages)
    made = new_id("pair")
    connection.execute(
        insert(pair).values(
            id=made,
            project_id=project_id,
            item_id=item_id,
            prompt_json=dump_messages(prompt),
            prompt_sha256=dialogue_key(prompt),
            seed=seed,
            state="generating",
            created_at=now(),
        )
    )
    return made


def complete_pair(connection: Connection, pair_id: str, answers: Mapping[Slot, NewAnswer]) -> None:
    """Store both answers of a pair; they are on disk before anybody can judge them.

    Raises:
        ValueError: one is empty, or both are the same.
    """
    if any(not answers[slot].text.strip() for slot in ("a", "b")) or answers["a"].text == answers["b"].text:
        raise ValueError(f"pair {pair_id}: an answer is empty, or both are the same")
    for slot in ("a", "b"):
        new = answers[slot]
        connection.execute(
            insert(answer).values(
                pair_id=pair_id,
                slot=slot,
                variant_id=_keep_variant(connection, new.variant),
                text=new.text,
                sampling_json=json.dumps(dict(new.variant.sampling), sort_keys=True),
                seed=new.seed,
                n_tokens=new.n_tokens,
                finish_reason=new.finish_reason,
                generation_ms=new.generation_ms,
            )
        )
    values = {"state": "complete", "error": None, "completed_at": now()}
    connection.execute(update(pair).where(pair.c.id == pair_id).values(**values))


def fail_pair(connection: Connection, pair_id: str, error: str) -> None:
    """Note that a pair's answers could not be made."""
    connection.execute(update(pair).where(pair.c.id == pair_id).values(state="failed", error=error))


def _keep_variant(connection: Connection, info: VariantInfo) -> str:
    name, checkpoint = storable(info.name), info.checkpoint and storable(info.checkpoint)
    known = (name, checkpoint, info.weights_sha256, info.chat_template_sha256)
    identifier = f"var_{hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]}"
    if connection.execute(select(variant.c.id).where(variant.c.id == identifier)).one_or_none() is None:
        connection.execute(
            insert(variant).values(
                id=identifier,
                name=name,
                checkpoint=checkpoint,
                weights_sha256=info.weights_sha256,
                chat_template_sha256=info.chat_template_sha256,
                created_at=now(),
            )
        )
    return identifier
