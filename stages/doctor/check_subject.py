"""What a check gets, a recipe and what it names, and what it gives, a result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar, cast

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignment.data.dialogue_encoder import DialogueEncoder
from alignment.data.jsonl_and_raw_rows import ReadReport
from alignment.data.readers import load_demonstrations
from alignment.data.records import Demonstration, Prompt
from alignment.files import resolve
from alignment.models.backbone import Backbone
from alignment.models.pretrained import end_tokens_of, load_causal_lm, load_tokenizer
from alignment.run.run_folder import RunFolder
from alignment.settings.recipe import Recipe
from alignment.settings.sections import TOY_MODEL
from alignment.workflow.prompts_and_policies import heldout_prompts
from alignment.workflow.training_prompts import training_prompts

T = TypeVar("T")
Status = Literal["ok", "warning", "problem", "skipped"]


@dataclass(frozen=True)
class CheckResult:
    """What one check found, and what helps where it is not in ``what`` already."""

    status: Status
    what: str
    what_to_do: str = ""


class NotYet(Exception):
    """What a check looks at has not been made yet, or could not be loaded by an earlier check."""


class Subject:
    """What is checked, each part loaded when it is first asked for; what could not be loaded is not tried again.

    Every part raises ``UserError`` where it cannot be loaded, and ``NotYet`` when asked for once more after that.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.folder = RunFolder(recipe.run_dir)
        self._loaded: dict[str, object] = {}
        self._failed: set[str] = set()

    def _once(self, name: str, load: Callable[[], T]) -> T:
        if name in self._failed:
            raise NotYet(f"needs the {name}, see above")
        if name not in self._loaded:
            self._failed.add(name)
            self._loaded[name] = load()
            self._failed.remove(name)
        return cast(T, self._loaded[name])

    @property
    def path(self) -> str:
        """Where the base of all roles is: the SFT model, or what SFT starts from while there is none."""
        return self._once("model", self._path)

    def _path(self) -> str:
        if self.folder.finished("sft"):
            return str(self.folder.require("sft"))
        if self.recipe.model.name_or_path != TOY_MODEL:
            return self.recipe.model.name_or_path
        if not self.folder.finished("base"):
            raise NotYet(f"not made yet: {self.folder.command_for('base')}")
        return str(self.folder.require("base"))

    @property
    def model(self) -> PreTrainedModel:
        """The causal language model."""
        path = self.path
        return self._once("model's weights", lambda: load_causal_lm(path, self.recipe.model))

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer."""
        path, trusted = self.path, self.recipe.model.trust_remote_code
        return self._once("tokenizer", lambda: load_tokenizer(path, trust_remote_code=trusted))

    @property
    def encoder(self) -> DialogueEncoder:
        """Tokenizer and chat template together."""
        tokenizer, path, trusted = self.tokenizer, self.path, self.recipe.model.trust_remote_code
        return self._once(
            "chat template",
            lambda: DialogueEncoder(tokenizer, eos_token_ids=end_tokens_of(path, trust_remote_code=trusted)),
        )

    @property
    def backbone(self) -> Backbone:
        """The model with room for adapters."""
        model, tokenizer, encoder = self.model, self.tokenizer, self.encoder
        return self._once("backbone", lambda: Backbone(model, tokenizer, encoder, sampling_copy=False))

    @property
    def prompts(self) -> tuple[list[Prompt], ReadReport]:
        """The training prompts, not yet compared with the held-out ones, and what was left out of them."""
        data = self.recipe.data.model_copy(update={"heldout_prompts": None})
        recipe, number = self.recipe.model_copy(update={"data": data}), self.folder.latest_round("annotate") or 1
        return self._once("training prompts", lambda: training_prompts(recipe, self.folder, number)[:2])

    @property
    def heldout(self) -> tuple[list[Prompt], ReadReport]:
        """The held-out prompts, and what was left out of them; empty where the recipe names none."""
        return self._once("held-out prompts", lambda: heldout_prompts(self.recipe.data))

    @property
    def demonstrations(self) -> tuple[list[Demonstration], ReadReport]:
        """The SFT demonstrations, and what was left out of them."""
        sft, data = self.recipe.sft, self.recipe.data
        return self._once(
            "demonstrations",
            lambda: load_demonstrations(
                str(resolve(sft.data)), format=sft.format, on_error=data.on_error, unused=data.unused
            ),
        )
