"""Who answers: two variants, each a policy of a run, a model of one's own, or an HTTP endpoint.

Importing this module imports no torch; only loading a variant that runs in this process does. Variants on one backbone
have it draw their tokens in turn, one thread for all of them: answers that are written at the same time grow at the
same pace, however many there are, and none waits for another to end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from alignment.data.records import Message
from alignment.errors import UserError
from annotation_ui.items import VariantInfo
from annotation_ui.settings import AppSettings, VariantSettings

if TYPE_CHECKING:
    from alignment.models.backbone import Backbone
    from alignment.models.policies import Policy
    from alignment.run import RunFolder

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Piece:
    """An answer so far; the last piece of an answer has a ``finish_reason``.

    Attributes:
        text: all of it, not only what is new.
        finish_reason: ``length``: the limit cut it off; ``None`` while it goes on.
        n_tokens: its tokens, the stop token included; ``None`` where nobody counted.
    """

    text: str
    finish_reason: FinishReason | None = None
    n_tokens: int | None = None


class Unanswerable(Exception):
    """A conversation that no try will get an answer to; the text is for the annotator and says what to do."""


class VariantFailed(Exception):
    """A variant did not answer; the text is for the log and must not reach the annotator."""


class Variant(Protocol):
    """Answers conversations, several at a time, each from a thread of its own."""

    @property
    def info(self) -> VariantInfo:
        """What is kept with every answer."""

    def stream(self, messages: Sequence[Message], *, seed: int) -> Iterator[Piece]:
        """Draw one answer; the same seed draws the same one, as far as the variant can promise it.

        Raises:
            Unanswerable: the conversation is too long, or cannot be read by the model.
            VariantFailed: there is no answer; says why.
        """


class LocalVariant:
    """A model in this process: a role of a backbone at a temperature."""

    def __init__(self, info: VariantInfo, backbone: Backbone, role: str | None, turns: ThreadPoolExecutor) -> None:
        """Join those that draw from a backbone.

        Args:
            info: with the sampling settings that are used.
            backbone: may be shared with other variants.
            role: adapter on it, ``None`` for the bare base.
            turns: the one thread that uses this backbone; its queue is what makes streams take turns.
        """
        self.info, self.backbone, self.role, self._turns = info, backbone, role, turns

    def stream(self, messages: Sequence[Message], *, seed: int) -> Iterator[Piece]:
        """Draw one answer, each token when its turn comes."""
        from alignment.models.streaming import stream_answer
        from alignment.recipe import SamplingSection

        sampling = SamplingSection.model_validate(self.info.sampling)
        answer = stream_answer(self.backbone, self.role, messages, sampling, seed=seed)
        try:
            while (drawn := self._turns.submit(next, answer, None).result()) is not None:
                yield Piece(drawn.text, drawn.finish_reason, drawn.n_tokens)
        except UserError as error:
            raise Unanswerable(
                "A model cannot read this conversation: it has become too long, or contains marks that chat models use "
                "themselves. Shorten or reword the prompt, or begin a new conversation."
            ) from error


def load_variants(settings: AppSettings, run: Path | None) -> tuple[Variant, Variant] | None:
    """Load the two that answer; ``None`` where the settings name none.

    Args:
        settings: the app's.
        run: the run folder whose policies may be named.

    Raises:
        UserError: a variant cannot be loaded.
    """
    if settings.variants is None:
        return None
    loader = _Loader(run)
    first, second = settings.variants
    return loader.load(first), loader.load(second)


class _Loader:
    """Loads variants; what two of them share is loaded once."""

    def __init__(self, run: Path | None) -> None:
        self._run = run
        self._shared: Backbone | None = None
        self._policies: dict[str, Policy] = {}
        self._models: dict[Path, Backbone] = {}
        self._turns: dict[Backbone, ThreadPoolExecutor] = {}
        self._digests: dict[Path, str] = {}

    def load(self, wanted: VariantSettings) -> Variant:
        if wanted.policy is not None:
            return self._policy(wanted.policy, wanted)
        if wanted.model is not None:
            return self._model(wanted.model, wanted)
        from annotation_ui.endpoints import EndpointVariant

        return EndpointVariant.from_settings(wanted)

    def _policy(self, name: str, wanted: VariantSettings) -> Variant:
        """A policy of the run: an adapter on the backbone of all its policies, or fully trained a model of its own."""
        from alignment.models.policies import load_policy
        from alignment.run import RunFolder

        if self._run is None:
            raise UserError(f"variants: policy={name} belongs to a run. Give its folder: --run runs/toy")
        folder = RunFolder(self._run)
        base = folder.require("sft", command="python -m stages.sft")
        if name not in self._policies:
            self._policies[name] = load_policy(folder, self._backbone_of(folder), name)
        policy = self._policies[name]
        own = Path(policy.checkpoint)
        weights = self._weights([own] if policy.role is None else [base, own])
        checkpoint = own.relative_to(self._run).as_posix()
        return self._local(policy.name, checkpoint, weights, policy.backbone, policy.role, wanted)

    def _backbone_of(self, folder: RunFolder) -> Backbone:
        """What the policies of the run share, loaded as its own recipe says."""
        from alignment.config import load_recipe
        from alignment.models.policies import load_backbone

        if self._shared is None:
            model = load_recipe(str(folder.stage("sft") / "config.yaml")).model
            # Answers are drawn token by token, which makes no use of a second copy of the model.
            self._shared = load_backbone(folder, model.model_copy(update={"sampling_copy": False}))
        return self._shared

    def _model(self, name: str, wanted: VariantSettings) -> Variant:
        """A chat model in a folder or on the Hub."""
        from alignment.models.backbone import Backbone
        from alignment.models.pretrained import find_model
        from alignment.recipe import ModelSection

        path = find_model(name)
        if path not in self._models:
            settings = ModelSection(name_or_path=name)  # type: ignore[call-arg]
            self._models[path] = Backbone.load(path, settings)
        return self._local(Path(name).name, name, self._weights([path]), self._models[path], None, wanted)

    def _local(
        self,
        name: str,
        checkpoint: str,
        weights_sha256: str | None,
        backbone: Backbone,
        role: str | None,
        wanted: VariantSettings,
    ) -> LocalVariant:
        info = VariantInfo(
            name=variant_name(name, wanted),
            checkpoint=checkpoint,
            weights_sha256=weights_sha256,
            chat_template_sha256=hashlib.sha256(backbone.encoder.template.source.encode()).hexdigest(),
            sampling=sampling_of(wanted),
        )
        if backbone not in self._turns:
            self._turns[backbone] = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        return LocalVariant(info, backbone, role, self._turns[backbone])

    def _weights(self, folders: Sequence[Path]) -> str | None:
        """SHA-256 of the weight file in these folders; of several: of the lines of their SHA-256s."""
        files = [file for folder in folders for file in sorted(folder.glob("*.safetensors"))]
        for file in files:
            if file not in self._digests:
                with file.open("rb") as stream:
                    self._digests[file] = hashlib.file_digest(stream, "sha256").hexdigest()
        digests = [self._digests[file] for file in files]
        if len(digests) < 2:
            return digests[0] if digests else None
        return hashlib.sha256("".join(f"{digest}\n" for digest in digests).encode()).hexdigest()


def variant_name(model: str, wanted: VariantSettings) -> str:
    """What tells variants apart in reports: the model and its temperature, as simulated annotators write it too."""
    return f"{model}@{wanted.temperature}"


def sampling_of(wanted: VariantSettings) -> dict[str, float | int]:
    """How a variant's answers are drawn."""
    return {"temperature": wanted.temperature, "max_new_tokens": wanted.max_new_tokens}
