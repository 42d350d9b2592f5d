"""The app's settings: ``configs/annotation.yaml``, then ``key.sub=value``, then validation, all mistakes at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from alignment.data.records import Dimension
from alignment.errors import UserError
from alignment.settings.read_recipe import parse_settings, read_settings
from alignment.settings.sections import Count, Positive, Rate, Section, Share

DEFAULT_SETTINGS = "configs/annotation.yaml"


class VariantSettings(Section):
    """One of the two that answer: a policy of the run, a model by folder or Hub name, or an HTTP endpoint."""

    policy: str | None = Field(None, description="of the run: newest, sft, rejection, ppo, ppo-1, ...")
    model: str | None = Field(None, description="folder or Hub name of a chat model")
    endpoint: str | None = Field(None, description="base URL of an OpenAI-compatible API, such as http://host:8000/v1")
    endpoint_model: str | None = Field(None, description="model name to ask the endpoint for")
    api_key_env: str | None = Field(None, description="environment variable that holds the endpoint's key")
    temperature: Rate = Field(1.0, description="sampling temperature")
    max_new_tokens: Positive = Field(400, description="longest answer")

    @model_validator(mode="after")
    def _is_one_thing(self) -> VariantSettings:
        given = [name for name in ("policy", "model", "endpoint") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of policy, model, endpoint; given: {', '.join(given) or 'none'}")
        if (self.endpoint is None) != (self.endpoint_model is None):
            raise ValueError("endpoint and endpoint_model go together")
        return self


class ProjectSettings(Section):
    """One collection with guidelines of its own (section 3.2.1: helpfulness and safety are collected separately)."""

    name: str = Field(description="short name, part of ids", pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str = Field(description="what annotators see")
    dimension: Dimension = Field(description="what answers are compared by")
    batch: str = Field("batch-1", description="of items that are added from now on, and so of their judgments")
    mode: Literal["queue", "free", "both"] = Field("both", description="prompts from the queue, own prompts, or both")
    overlap: Positive = Field(1, description="annotators per queue item that was not added with a number of its own")
    max_turns: Positive = Field(4, description="turns of a conversation; 1: no going on")
    ask_safety: bool = Field(False, description="ask which answers are safe")
    guidelines: str | None = Field(None, description="Markdown file; default: the project's own for the dimension")
    gold_share: Share = Field(0.05, description="share of items with a known answer, as long as there are some")


class QualificationSettings(Section):
    """The test that has to be passed before judgments count, modelled on the four tests of appendix A.5.2."""

    required: bool = Field(True, description="off: everybody may judge at once")
    questions: Positive = Field(10, description="comparisons with a known answer")
    min_agreement: Share = Field(0.8, description="share of them to agree with (the paper: 80 %)")
    attempts: Positive = Field(2, description="tries before an admin has to reset the test")


class AccountSettings(Section):
    """Signing in."""

    session_hours: Rate = Field(12, description="until one has to sign in again")
    max_failures: Positive = Field(5, description="wrong passwords before the account is locked")
    lock_minutes: Rate = Field(15, description="how long it is locked")


class AppSettings(Section):
    """Everything about one annotation server."""

    database: str | None = Field(
        None, description="SQLite file, or postgresql+psycopg://...; default: annotation/annotations.db of the run"
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    port: Count = Field(7860, description="0: any free one")
    allowed_hosts: list[str] = Field([], description="further names by which browsers reach the server")
    max_prompt_chars: Positive = Field(2000, description="longest prompt")
    lease_minutes: Rate = Field(60, description="until an item that was fetched and not judged goes to others")
    variants: tuple[VariantSettings, VariantSettings] | None = Field(
        None, description="the two that answer; none: only pairs that were sampled before"
    )
    projects: list[ProjectSettings] = Field(min_length=1, description="what is collected")
    qualification: QualificationSettings = QualificationSettings()  # type: ignore[call-arg]
    accounts: AccountSettings = AccountSettings()  # type: ignore[call-arg]

    @field_validator("projects", mode="before")
    @classmethod
    def _named_by_key(cls, given: object) -> object:
        """``projects: {safety: {...}}``, which overrides can reach, is the same as a list with names."""
        if not isinstance(given, dict):
            return given
        return [{"name": name, **values} if isinstance(values, dict) else values for name, values in given.items()]

    @model_validator(mode="after")
    def _names_differ(self) -> AppSettings:
        names = [project.name for project in self.projects]
        if len(set(names)) < len(names):
            raise ValueError(f"two projects have the same name: {', '.join(names)}")
        return self


def load_settings(path: str | None = None, overrides: Sequence[str] = ()) -> AppSettings:
    """Read a settings file, apply ``key.sub=value`` and validate; raise ``UserError`` that lists every mistake."""
    origin = path or DEFAULT_SETTINGS
    given = [item.partition("=")[0] for item in overrides]
    return parse_settings(AppSettings, read_settings(origin, overrides), origin=origin, given=given)


def database_of(settings: AppSettings, run: Path | None) -> str:
    """Where the store is: as the settings say, else in the run folder.

    Raises:
        UserError: neither is given, or there is no such run.
    """
    if settings.database is not None:
        return settings.database
    if run is None:
        raise UserError("which store? Give --run RUN, or database=FILE (or a PostgreSQL URL).")
    if not run.is_dir():
        raise UserError(f"no such run folder: {run}. Make one with python -m stages.sft run_dir={run}")
    return str(run / "annotation" / "annotations.db")
