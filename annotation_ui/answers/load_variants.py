"""Loads the variants that the settings name. Importing this imports no torch; a variant of this process does, later."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from alignment.errors import UserError
from annotation_ui.answers.endpoint_variant import EndpointVariant
from annotation_ui.answers.variants import LocalVariant, Variant, sampling_of, variant_name
from annotation_ui.app_settings import AppSettings, VariantSettings
from annotation_ui.store.pairs import VariantInfo

if TYPE_CHECKING:
    from alignment.models.backbone import Backbone
    from alignment.run.run_folder import RunFolder
    from alignment.workflow.prompts_and_policies import Policy


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
        return EndpointVariant.from_settings(wanted)

    def _policy(self, name: str, wanted: VariantSettings) -> Variant:
        """A policy of the run: an adapter on the backbone of all its policies, or fully trained a model of its own."""
        from alignment.run.run_folder import RunFolder
        from alignment.workflow.prompts_and_policies import load_policy

        if self._run is None:
            raise UserError(f"variants: policy={name} belongs to a run. Give its folder: --run runs/toy")
        folder = RunFolder(self._run)
        base = folder.require("sft")
        if name not in self._policies:
            self._policies[name] = load_policy(folder, self._backbone_of(folder), name)
        policy = self._policies[name]
        own = Path(policy.checkpoint)
        weights = self._weights([own] if policy.role.adapter is None else [base, own])
        checkpoint = own.relative_to(self._run).as_posix()
        return self._local(policy.name, checkpoint, weights, *policy.role, wanted)

    def _backbone_of(self, folder: RunFolder) -> Backbone:
        """What the policies of the run share, loaded as its own recipe says."""
        from alignment.settings.read_recipe import load_recipe
        from alignment.workflow.prompts_and_policies import load_backbone

        if self._shared is None:
            model = load_recipe(str(folder.stage("sft") / "config.yaml")).model
            # Answers are drawn token by token, which makes no use of a second copy of the model.
            self._shared = load_backbone(folder, model.model_copy(update={"sampling_copy": False}))
        return self._shared

    def _model(self, name: str, wanted: VariantSettings) -> Variant:
        """A chat model in a folder or on the Hub."""
        from alignment.models.model_places import find_model
        from alignment.models.pretrained import load_base
        from alignment.settings.sections import ModelSection

        path = find_model(name)
        if path not in self._models:
            settings = ModelSection(name_or_path=name)  # type: ignore[call-arg]
            self._models[path] = load_base(path, settings)
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
            chat_template_sha256=hashlib.sha256(backbone.encoder.template_source.encode()).hexdigest(),
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
