"""The tables, for SQLite and PostgreSQL alike.

What people said is append-only: a judgment is never changed or deleted (triggers refuse it), another row supersedes it.
A *pair* is a prompt with its two answers, in slots a and b; a *comparison* is one annotator's showing of a pair, with
the side on which each slot stood. Times are ISO 8601 in UTC, as text, so that both databases order them alike.
"""

from __future__ import annotations

from sqlalchemy import (
    DDL,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    event,
    exists,
    select,
)

from alignment.data.records import GRADES, SAFETY_LABELS

VERSION = 1
metadata = MetaData()


def _one_of(column: str, *values: str) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_is_known")


def _id() -> Column[str]:
    return Column("id", Text, primary_key=True)


def _to(table: str, *, index: bool = False, nullable: bool = False) -> Column[str]:
    return Column(f"{table}_id", Text, ForeignKey(f"{table}.id"), nullable=nullable, index=index)


def _text(name: str, *, nullable: bool = False, default: str | None = None) -> Column[str]:
    return Column(name, Text, nullable=nullable, server_default=default)


def _integer(name: str, *, nullable: bool = False, default: str | None = None) -> Column[int]:
    return Column(name, Integer, nullable=nullable, server_default=default)


annotator = Table(
    "annotator",
    metadata,
    _id(),
    Column("username", Text, nullable=False, unique=True),
    _text("role"),
    _text("password_hash"),
    Column("active", Boolean, nullable=False),
    _text("withdrawn_at", nullable=True),
    _text("created_at"),
    _one_of("role", "annotator", "reviewer", "admin"),
)
"""``id`` is a pseudonym, and what exports carry."""

login_failure = Table(
    "login_failure",
    metadata,
    Column("username", Text, primary_key=True),
    _integer("failures"),
    _text("locked_until", nullable=True),
)
"""Wrong passwords by name: ``failures`` count, and lock once there are enough of them, until ``locked_until``."""

login_session = Table(
    "login_session",
    metadata,
    Column("token_sha256", Text, primary_key=True),
    _to("annotator", index=True),
    _text("created_at"),
    _text("expires_at"),
)

guideline = Table("guideline", metadata, Column("sha256", Text, primary_key=True), _text("markdown"))

project = Table(
    "project",
    metadata,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    _text("title"),
    _text("dimension"),
    _text("batch"),
    _text("mode"),
    _integer("overlap"),
    _integer("max_turns"),
    Column("ask_safety", Boolean, nullable=False),
    Column("guidelines_sha256", Text, ForeignKey("guideline.sha256"), nullable=False),
    _text("config_json"),
    _text("created_at"),
    _one_of("dimension", "helpfulness", "safety"),
    _one_of("mode", "queue", "free", "both"),
)

variant = Table(
    "variant",
    metadata,
    _id(),
    _text("name"),
    _text("checkpoint", nullable=True),
    _text("weights_sha256", nullable=True),
    _text("chat_template_sha256", nullable=True),
    _text("created_at"),
)

item = Table(
    "item",
    metadata,
    _id(),
    _to("project"),
    _text("source"),
    _text("part"),
    _text("batch"),
    _text("kind", nullable=True),
    _text("messages_json"),
    _text("prompt_sha256"),
    _integer("priority", default="0"),
    _integer("place"),
    _integer("overlap"),
    _integer("remaining"),
    _text("expected_json", nullable=True),
    _text("created_at"),
    _one_of("source", "queue", "annotator", "gold", "training", "qualification"),
    _one_of("part", "train", "heldout"),
)
"""A prompt that waits for judgments. ``remaining`` is its overlap less those done and those out on a lease."""
Index(
    "item_queue",
    item.c.project_id,
    item.c.source,
    item.c.priority.desc(),
    item.c.place,
    sqlite_where=item.c.remaining > 0,
    postgresql_where=item.c.remaining > 0,
)

Index("item_place", item.c.place)
Index("item_of_source", item.c.project_id, item.c.source)

assignment = Table(
    "assignment",
    metadata,
    _id(),
    _to("item", index=True),
    _to("annotator"),
    _text("state"),
    _text("lease_expires_at"),
    _text("created_at"),
    UniqueConstraint("annotator_id", "item_id"),
    Index("assignment_expiry", "state", "lease_expires_at"),
    _one_of("state", "leased", "done", "skipped", "returned", "expired"),
)

conversation = Table(
    "conversation",
    metadata,
    _id(),
    _to("project"),
    _to("annotator"),
    _to("item", index=True),
    _text("kind"),
    _text("state"),
    _text("created_at"),
    Index("conversation_of", "annotator_id", "project_id", "state"),
    _one_of("kind", "work", "training", "qualification"),
    _one_of("state", "active", "finished", "abandoned"),
)

desk_place = Table(
    "desk_place",
    metadata,
    Column("annotator_id", Text, ForeignKey("annotator.id"), primary_key=True),
    Column("project_id", Text, ForeignKey("project.id"), primary_key=True),
    _to("conversation", nullable=True),
    _text("editing", nullable=True),
    _text("warned_until", nullable=True),
    _text("at"),
)
"""Where an annotator is in a project: what a reload or a crash comes back to. ``editing``: a comparison."""

pair = Table(
    "pair",
    metadata,
    _id(),
    _to("project"),
    _to("item", index=True),
    _text("prompt_json"),
    _text("prompt_sha256"),
    _integer("seed", nullable=True),
    _text("state"),
    _text("error", nullable=True),
    _text("created_at"),
    _text("completed_at", nullable=True),
    _one_of("state", "generating", "complete", "failed"),
)

answer = Table(
    "answer",
    metadata,
    Column("pair_id", Text, ForeignKey("pair.id"), primary_key=True),
    Column("slot", Text, primary_key=True),
    _to("variant"),
    _text("text"),
    _text("sampling_json"),
    _integer("seed", nullable=True),
    _integer("n_tokens", nullable=True),
    _text("finish_reason", nullable=True),
    _integer("generation_ms", nullable=True),
    _one_of("slot", "a", "b"),
)

comparison = Table(
    "comparison",
    metadata,
    _id(),
    _to("conversation"),
    _to("pair", index=True),
    _to("annotator"),
    _to("project"),
    _text("kind"),
    _integer("turn"),
    _text("left_slot"),
    _integer("order_seed"),
    _text("state"),
    _text("first_shown_at", nullable=True),
    _text("judged_at", nullable=True),
    _text("created_at"),
    UniqueConstraint("conversation_id", "turn"),
    UniqueConstraint("pair_id", "annotator_id"),
    Index("comparison_of", "annotator_id", "project_id", "kind", "state", "judged_at"),
    _one_of("left_slot", "a", "b"),
    _one_of("state", "open", "judged", "skipped"),
)

judgment = Table(
    "judgment",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("submission_id", Text, nullable=False, unique=True),
    _to("comparison", index=True),
    _to("annotator", index=True),
    _text("kind"),
    Column("supersedes", Integer, ForeignKey("judgment.id"), unique=True),
    _text("chosen_slot", nullable=True),
    _text("grade", nullable=True),
    _text("safety", nullable=True),
    _text("skip_reason", nullable=True),
    _text("flags_json", default="[]"),
    _text("note", nullable=True),
    _integer("active_ms", nullable=True),
    _text("input_method", nullable=True),
    _text("app_version"),
    Column("guidelines_sha256", Text, ForeignKey("guideline.sha256"), nullable=False),
    _text("created_at"),
    _one_of("kind", "judgment", "skip", "retraction"),
    _one_of("chosen_slot", "a", "b"),
    _one_of("grade", *GRADES),
    _one_of("safety", *SAFETY_LABELS),
    CheckConstraint("kind <> 'judgment' OR (chosen_slot IS NOT NULL AND grade IS NOT NULL)", name="judgment_is_whole"),
    CheckConstraint("kind <> 'skip' OR skip_reason IS NOT NULL", name="skip_has_reason"),
    CheckConstraint("kind <> 'retraction' OR supersedes IS NOT NULL", name="retraction_has_object"),
)
"""A row for each thing said: append-only. The first about a comparison supersedes nothing, each later one the last."""

Index(
    "one_root_judgment",
    judgment.c.comparison_id,
    unique=True,
    sqlite_where=judgment.c.supersedes.is_(None),
    postgresql_where=judgment.c.supersedes.is_(None),
)

qualification = Table(
    "qualification",
    metadata,
    _id(),
    _to("annotator"),
    _to("project"),
    _integer("attempt"),
    _integer("n_questions"),
    _integer("n_agreed", nullable=True),
    Column("passed", Boolean),
    _text("waived_by", nullable=True),
    _text("created_at"),
    _text("finished_at", nullable=True),
    UniqueConstraint("annotator_id", "project_id", "attempt"),
)
"""An attempt at a project's test; ``passed`` is null while it goes on."""

export_log = Table(
    "export_log",
    metadata,
    Column("id", Integer, primary_key=True),
    _integer("max_judgment_id"),
    _integer("n"),
    _text("sha256"),
    _text("filter_json"),
    _text("path"),
    _text("created_at"),
)

_later = judgment.alias("later")
current_judgment = (
    select(judgment)
    .where(judgment.c.kind == "judgment", ~exists().where(_later.c.supersedes == judgment.c.id))
    .subquery("current_judgment")
)
"""What people say now: judgments that nothing has superseded."""

for _what in ("UPDATE", "DELETE"):
    event.listen(
        judgment,
        "after_create",
        DDL(
            f"CREATE TRIGGER judgment_no_{_what.lower()} BEFORE {_what} ON judgment "
            "BEGIN SELECT RAISE(ABORT, 'judgment is append-only'); END"
        ).execute_if(dialect="sqlite"),
    )
event.listen(
    judgment,
    "after_create",
    DDL(
        "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'judgment is append-only'; END $$"
    ).execute_if(dialect="postgresql"),
)
event.listen(
    judgment,
    "after_create",
    DDL(
        "CREATE TRIGGER judgment_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON judgment "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    ).execute_if(dialect="postgresql"),
)
