"""What a stage takes from its recipe and run: prompts for training and held out, and policies by name.

Prompts are checked, encoded once, left out where too long, and given out in batches; a policy is loaded as a role of
one backbone, or as a model of its own, which then has its own tokenizer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from alignment.data.encoded_dialogues import AnyPrompt, EncodedPrompt, encode_prompts, without_marks
from alignment.data.jsonl_and_raw_rows import ReadReport
from alignment.data.readers import load_prompts
from alignment.data.records import Message, Prompt
from alignment.data.splits import check_heldout_apart
from alignment.errors import UserError
from alignment.files import resolve
from alignment.models.backbone import Backbone, Role
from alignment.models.model_places import find_model
from alignment.models.pretrained import check_trainable, dtype_name, load_base
from alignment.run.run_folder import RunFolder
from alignment.settings.recipe import Recipe
from alignment.settings.sections import TOY_MODEL, DataSection, ModelSection
from alignment.workflow.own_data import is_left_over


def heldout_prompts(data: DataSection) -> tuple[list[Prompt], ReadReport]:
    """The held-out prompts and what was left out of them; empty where the recipe names none."""
    if data.heldout_prompts is None:
        return [], ReadReport(path="")
    return read_prompts(data, data.heldout_prompts)


def check_against_heldout(recipe: Recipe, dialogues: Iterable[Sequence[Message]], *, name: str) -> None:
    """Raise ``UserError`` if one of the held-out prompts is among these prompts, which are to be trained on.

    Held-out prompts of the toy's that are left over in a run with own data are no matter.
    """
    if is_left_over(recipe, "data.heldout_prompts"):
        return
    check_heldout_apart(
        dialogues,
        (prompt.messages for prompt in heldout_prompts(recipe.data)[0]),
        train_name=name,
        heldout_name=str(recipe.data.heldout_prompts),
    )


def read_prompts(data: DataSection, path: str) -> tuple[list[Prompt], ReadReport]:
    """The prompts of a file and what was left out of them.

    Raises:
        UserError: a line is wrong and ``data.on_error`` is not ``skip``, or two prompts have one id.
    """
    prompts, report = load_prompts(str(resolve(path)), on_error=data.on_error, unused=data.unused)
    counts = Counter(prompt.id for prompt in prompts)
    identifier, count = counts.most_common(1)[0]
    if count > 1:
        raise UserError(f"{path}: {count} prompts have the id {identifier!r}. Give each prompt an id of its own.")
    return prompts, report


def with_room(
    backbone: Backbone, prompts: Sequence[Prompt], data: DataSection, *, max_new_tokens: int
) -> tuple[list[EncodedPrompt], dict[str, int]]:
    """Prompts that leave room for an answer, encoded for the model; and how many others there were, by reason.

    Args:
        backbone: whose context, tokenizer and chat template.
        prompts: to choose from.
        data: says whether one that is too long, or holds a mark of the chat template, is left out.
        max_new_tokens: of the answer.

    Raises:
        UserError: one does not and ``data.too_long`` is not ``skip``; one holds a mark and ``data.on_error`` is not.
    """
    readable, marked = without_marks(prompts, backbone.encoder, on_error=data.on_error)
    encoded, too_long = encode_prompts(
        readable,
        backbone.encoder,
        max_new_tokens=max_new_tokens,
        context_tokens=backbone.context_tokens,
        skip_too_long=data.too_long == "skip",
    )
    return encoded, {**marked, "too long": too_long}


def encoded_for(
    backbone: Backbone, prompts: Sequence[EncodedPrompt], *, encoded_by: Backbone, max_new_tokens: int
) -> list[EncodedPrompt]:
    """The prompts as a policy's backbone reads them: encoded anew where it is a model of its own.

    Args:
        backbone: the policy's.
        prompts: encoded for the SFT model.
        encoded_by: the SFT model.
        max_new_tokens: of the answer.

    Raises:
        UserError: one leaves no room for an answer in the other model's context.
    """
    if backbone is encoded_by:
        return list(prompts)
    encoded, _ = encode_prompts(
        [item.prompt for item in prompts],
        backbone.encoder,
        max_new_tokens=max_new_tokens,
        context_tokens=backbone.context_tokens,
        skip_too_long=False,
    )
    return encoded


def prompt_batches(
    prompts: Sequence[AnyPrompt], batch_size: int, *, seed: int, safety_share: float | None = None
) -> Iterator[list[AnyPrompt]]:
    """Batches without end: each pass over the prompts in a new order, none skipped or repeated within a pass.

    Args:
        prompts: what to train on, encoded or not.
        batch_size: prompts per batch.
        seed: of the order.
        safety_share: of prompts tagged safety in every batch, which then take their own passes; ``None``: as it comes.

    Raises:
        UserError: there is no prompt, or none of a tag that the share asks for.
    """
    if not prompts:
        raise UserError("there is no prompt to train on")
    generator = torch.Generator().manual_seed(seed)
    if safety_share is None:
        parts = [(list(prompts), batch_size)]
    else:
        n_safety = round(safety_share * batch_size)
        tagged = [prompt for prompt in prompts if prompt.dimension == "safety"]
        others = [prompt for prompt in prompts if prompt.dimension != "safety"]
        if (n_safety and not tagged) or (n_safety < batch_size and not others):
            raise UserError(
                f"ppo.safety_share={safety_share}: {len(tagged)} of {len(prompts)} prompts are safety prompts"
            )
        parts = [(tagged, n_safety), (others, batch_size - n_safety)]
    return _batches([(_passes(part, generator), count) for part, count in parts])


def _batches(streams: Sequence[tuple[Iterator[AnyPrompt], int]]) -> Iterator[list[AnyPrompt]]:
    while True:
        yield [next(stream) for stream, count in streams for _ in range(count)]


def _passes(prompts: Sequence[AnyPrompt], generator: torch.Generator) -> Iterator[AnyPrompt]:
    while True:
        for index in torch.randperm(len(prompts), generator=generator).tolist():
            yield prompts[index]


@dataclass(frozen=True)
class Policy:
    """A policy of a run: ``sft`` is the bare base, others are adapters on it or, after full training, models."""

    name: str
    role: Role
    checkpoint: str


def policy_names(folder: RunFolder) -> list[str]:
    """Names that ``load_policy`` accepts, in the order in which they were made."""
    names = ["sft"] if folder.finished("sft") else []
    for round_number in range(1, 1 + max(folder.latest_round("rejection") or 0, folder.latest_round("ppo") or 0)):
        names += [f"{stage}-{round_number}" for stage in ("rejection", "ppo") if folder.finished(stage, round_number)]
    return names


def load_backbone(folder: RunFolder, settings: ModelSection) -> Backbone:
    """The SFT model of a run as the frozen base of all roles."""
    backbone = load_base(folder.require("sft"), settings)
    check_trainable(backbone, settings)
    return backbone


def load_policy(folder: RunFolder, backbone: Backbone, name: str) -> Policy:
    """Load a policy: ``sft``, ``rejection`` or ``ppo`` (of the latest round), ``ppo-1``, or ``newest``.

    Raises:
        UserError: the run has no such policy, and lists those it has; or it belongs to an earlier SFT model.
    """
    known = policy_names(folder)
    if name == "newest":
        newest = folder.policy
        name = newest["stage"] if newest["round"] is None else f"{newest['stage']}-{newest['round']}"
    stage, _, number = name.partition("-")
    if not number and stage in ("rejection", "ppo"):
        number = str(folder.latest_round(stage) or "")
        name = f"{stage}-{number}"
    if name not in known:
        raise UserError(f"{folder.root} has no policy {name!r}; it has: {', '.join(known) or 'none yet'}")
    if name == "sft":
        return Policy("sft", Role(backbone, None), str(folder.stage("sft")))
    path = folder.require(stage, int(number))
    if (path / "config.json").is_file():
        settings = ModelSection(  # type: ignore[call-arg]
            name_or_path=str(path), dtype=dtype_name(backbone.dtype), trust_remote_code=backbone.trust_remote_code
        )
        own = load_base(path, settings)
        return Policy(name, Role(own, None), str(path))
    if backbone.peft is None or name not in backbone.peft.peft_config:
        backbone.load_adapter(name, path)
    return Policy(name, Role(backbone, name), str(path))


def newest_before(folder: RunFolder, round_number: int) -> str:
    """Name of the policy that a round starts from: the last one of the rounds before, else ``sft``.

    A stage of round 2 that is run again starts from the same policy as before, not from what round 2 has made since.
    """
    earlier = [name for name in policy_names(folder) if name == "sft" or int(name.partition("-")[2]) < round_number]
    return earlier[-1] if earlier else "sft"


def base_model_path(recipe: Recipe, folder: RunFolder) -> str:
    """The toy base in the run folder, or the model that the recipe names."""
    if recipe.model.name_or_path != TOY_MODEL:
        return recipe.model.name_or_path
    return str(folder.require("base"))


def base_of_sft(recipe: Recipe, folder: RunFolder) -> str:
    """The base that SFT was trained on: of a name on the Hub, that commit, whatever the Hub has by that name since.

    Raises:
        UserError: neither this machine's cache nor the Hub has that commit.
    """
    used = folder.result("sft").get("hub_snapshot") if folder.finished("sft") else None
    if used is None or Path(used).is_dir():
        return used or base_model_path(recipe, folder)
    return str(find_model(recipe.model.name_or_path, commit=Path(used).name))
