"""A reward model: an adapter on the shared base, a head, and what calibrates its scores.

Scores are raw head outputs in float32, before any sigmoid (the gate works on these, section 3.2.3), minus a constant
``offset`` found by calibration. A model loads with exactly the head it was trained with, or not at all.

Shapes: B dialogues, T tokens, H hidden.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from alignment.data.encoded_dialogues import EncodedAnswer, distinct_answers
from alignment.errors import UserError
from alignment.files import read_json, write_json
from alignment.masks_padding_logprobs import group_by_length, padded_width, token_logprobs
from alignment.models.backbone import Backbone, Role
from alignment.models.heads.known_heads import HeadArgument, build_head
from alignment.models.pretrained import dtype_name, load_base
from alignment.models.scorers.scorer_protocol import OnBatch, RewardJudgment, ValueStart, check_finite, no_value_start
from alignment.models.shared_prompts import SharedPrompts, batches_by_prompt, can_share, dialogue_states, pack_answers
from alignment.models.weights_from_files import read_weights
from alignment.settings.sections import ModelSection

FORMAT_VERSION = 1
FILE = "reward_model.json"
"""What says that a folder holds a reward model, with its head's name and arguments."""
HEAD_FILE = "head.safetensors"
GROUP_ROWS = 32
"""Rows at most per forward pass: enough to keep the kernels busy."""
SHARED_ANSWERS = 8
"""Answers at most that follow one prompt in a row: attention over the row grows with its square."""


class RewardModel(nn.Module):
    """Scores whole dialogues that end with an answer and its stop token."""

    def __init__(
        self,
        backbone: Backbone,
        role: str | None,
        *,
        head_name: str,
        head_arguments: Mapping[str, HeadArgument],
        offset: float = 0.0,
    ) -> None:
        """Make a model with a fresh head.

        Args:
            backbone: base and tokenizer.
            role: an adapter on it; ``None``: its own weights, for a model that is trained as a whole.
            head_name: a key of ``HEADS``.
            head_arguments: options of that head.
            offset: taken off every score.
        """
        super().__init__()
        self.backbone = backbone
        self.role = role
        self.folder = Path()
        self.head_name = head_name
        self.head_arguments = dict(head_arguments)
        self.offset = offset
        self.trunk = backbone.base if role is None else backbone.peft  # registers its parameters with this module
        self.head = build_head(head_name, backbone.hidden_size, arguments=head_arguments).to(backbone.device)
        # What TRL's RewardTrainer wants to see; a copy, so that nothing it sets reaches the shared base.
        self.config = copy.deepcopy(backbone.base.config)
        self.config.num_labels = 1

    @property
    def folders(self) -> list[Path]:
        """The folder that it was loaded from."""
        return [self.folder]

    def forward(
        self, token_ids: Tensor, prompt_lengths: Tensor, answer_lengths: Tensor, *, opinions: bool = False
    ) -> Tensor:
        """Scores (B, K) of K answers to each of B prompts, or (B, K, M) with the M ``opinions`` of the head on each.

        Rows of similar length pass together, each group cut to its own longest.

        Args:
            token_ids: (B, T) a prompt and its answers one after the other, padded on the right.
            prompt_lengths: (B,)
            answer_lengths: (B, K), stop tokens included.
            opinions: return what the losses compare, before it is combined to one score and the offset is taken off.
        """
        groups = group_by_length(prompt_lengths + answer_lengths.sum(1), most=GROUP_ROWS)
        passed = [
            self._opinions(token_ids[rows], SharedPrompts(prompt_lengths[rows], answer_lengths[rows]))
            for rows in groups
        ]
        found = torch.cat(passed)[torch.cat(groups).argsort()]
        return found if opinions else self.head.combine(found.flatten(0, 1)).view_as(answer_lengths) - self.offset

    def _opinions(self, token_ids: Tensor, prompts: SharedPrompts) -> Tensor:
        """Opinions (B, K, M) of one group, without the offset."""
        token_ids = token_ids[:, : padded_width(int(prompts.lengths.max()))]
        lengths, likelihood = prompts.dialogue_lengths, None
        with self.backbone.role(self.role):
            hidden = dialogue_states(self.backbone, token_ids, prompts)
            if self.head.needs_likelihood:
                prompt_lengths = lengths - prompts.answer_lengths.flatten()
                likelihood = self._likelihood(hidden, prompts.split(token_ids), prompt_lengths, lengths)
        found = self.head.opinions(hidden, lengths - 1, likelihood).float()
        return found.view(*prompts.answer_lengths.shape, found.shape[-1])

    def _likelihood(self, hidden: Tensor, token_ids: Tensor, prompt_lengths: Tensor, lengths: Tensor) -> Tensor:
        """(B, 2): mean and least log-probability of the answer's tokens under this role, nats."""
        columns = torch.arange(1, token_ids.shape[1], device=token_ids.device)
        answer_mask = (columns >= prompt_lengths[:, None]) & (columns < lengths[:, None])
        logits = self.backbone.logits(hidden[:, :-1][answer_mask])
        found = token_logprobs(logits, token_ids[:, 1:][answer_mask], temperature=1.0)
        logprobs = torch.zeros(answer_mask.shape, device=found.device).masked_scatter(answer_mask, found)
        return torch.stack([logprobs.sum(1) / (lengths - prompt_lengths), logprobs.min(1).values], dim=1)

    @torch.no_grad()
    def judge(self, dialogues: Sequence[EncodedAnswer], *, batch_size: int, on_batch: OnBatch = None) -> RewardJudgment:
        """Judge encoded dialogues in batches of similar length, a shared prompt passing once.

        Equal dialogues pass once as well.

        Raises:
            UserError: a score is not a number.
        """
        shared = min(SHARED_ANSWERS, batch_size) if can_share(self.backbone.base) else 1
        distinct, places = distinct_answers(dialogues)
        parts: list[Tensor] = []
        order: list[int] = []
        for rows in batches_by_prompt(distinct, batch_size=batch_size, shared=shared):
            answers = [[distinct[index] for index in row] for row in rows]
            inputs = pack_answers(answers, self.backbone.encoder.pad_id, self.backbone.device)
            parts.append(self(*inputs, opinions=True).flatten(0, 1))
            order += [index for row in rows for index in row]
            if on_batch is not None:
                on_batch(sum(map(len, rows)))
        if not parts:
            return RewardJudgment(torch.empty(0), None)
        opinions = torch.cat(parts)[torch.tensor(order).argsort()][torch.tensor(places)]
        disagreement = self.head.disagreement(opinions)
        scores = self.head.combine(opinions).cpu() - self.offset
        check_finite(scores, repr(self.role) if self.folder == Path() else f"in {self.folder}")
        return RewardJudgment(scores, None if disagreement is None else disagreement.cpu())

    def score(self, dialogues: Sequence[EncodedAnswer], *, batch_size: int, on_batch: OnBatch = None) -> Tensor:
        """Scores (B,) of encoded dialogues, on the CPU; as ``judge``."""
        return self.judge(dialogues, batch_size=batch_size, on_batch=on_batch).scores

    def value_start(self, backbone: Backbone, *, whole: bool) -> ValueStart:
        """Role and head, where the role is one of the policy's base, or the value function has a model of its own."""
        if self.backbone is backbone or (whole and self.role is None):
            return ValueStart(Role(self.backbone, self.role), self.head)
        raise no_value_start(instead="ppo.value=model or ppo.value=head" if self.role is None else "ppo.value=head")

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Adapter, or all weights that are trained, and head."""
        return [*Role(self.backbone, self.role).trainable_parameters(), *self.head.parameters()]

    def gradient_checkpointing_enable(self, *unused: Any, **unused_by_name: Any) -> None:
        """Refuse: checkpointing would compute the backward pass under whichever role is active by then."""
        raise UserError(
            "reward.trainer: gradient checkpointing is not supported; lower micro_batch_size_pairs or max_length_tokens"
        )

    def add_model_tags(self, tags: Any) -> None:
        """Accept TRL's model-card tags; Tandem writes its own card."""

    def save(self, folder: Path, *, calibration: dict[str, Any]) -> None:
        """Write adapter (or model), head and, last, ``reward_model.json``."""
        Role(self.backbone, self.role).save(folder)
        state = {key: value.detach().float().contiguous().cpu() for key, value in self.head.state_dict().items()}
        save_file(state, str(folder / HEAD_FILE), metadata={"format": "pt"})
        description = {
            "format_version": FORMAT_VERSION,
            "head": {"name": self.head_name, "arguments": self.head_arguments},
            "offset": self.offset,
            "calibration": calibration,
        }
        write_json(folder / FILE, description)

    @classmethod
    def load(cls, backbone: Backbone, role: str, folder: Path) -> RewardModel:
        """Load a saved reward model: as a frozen role of ``backbone``, or beside it where all its weights were trained.

        Raises:
            UserError: a file is missing, or the head's weights do not fit the head that was trained.
        """
        # The weights: all of them, or an adapter on the shared base.
        description = read_description(folder)
        name: str | None = role
        if is_full_model(folder):
            settings = ModelSection(  # type: ignore[call-arg]
                name_or_path=str(folder),
                dtype=dtype_name(backbone.dtype),
                trust_remote_code=backbone.trust_remote_code,
            )
            backbone, name = load_base(folder, settings), None
        else:
            backbone.load_adapter(role, folder, trainable=False)
        # The head, as it was trained.
        model = cls(
            backbone,
            name,
            head_name=description["head"]["name"],
            head_arguments=description["head"]["arguments"],
            offset=description["offset"],
        )
        try:
            model.head.load_state_dict(read_weights(folder / HEAD_FILE), strict=True)
        except RuntimeError as error:
            raise UserError(f"{folder}: {HEAD_FILE} does not hold a {model.head_name} head ({error})") from error
        # Freeze it, and remember where it came from.
        model.head.requires_grad_(False)
        model.folder = folder
        return model.eval()


def is_full_model(folder: Path) -> bool:
    """Whether a reward model's folder holds all weights rather than an adapter."""
    return (folder / "config.json").is_file()


def read_description(folder: Path) -> dict[str, Any]:
    """What a folder says of the reward model in it.

    Raises:
        UserError: a file is missing, or it is of another format version.
    """
    weights = "model.safetensors" if is_full_model(folder) else "adapter_model.safetensors"
    if is_full_model(folder) and (folder / "model.safetensors.index.json").is_file():
        weights = "model.safetensors.index.json"
    for name in (FILE, HEAD_FILE, weights):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: not a reward model, {name} is missing")
    description: dict[str, Any] = read_json(folder / FILE)
    if description["format_version"] != FORMAT_VERSION:
        raise UserError(f"{folder}: format version {description['format_version']}, this Tandem reads {FORMAT_VERSION}")
    return description
