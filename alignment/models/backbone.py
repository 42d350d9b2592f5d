"""One frozen base, many roles: every role is a LoRA adapter on the same weights (design: five roles on one base).

A role switch sets which adapter the layers use and nothing else. PEFT's own ``set_adapter`` and ``disable_adapter``
also toggle ``requires_grad``, which silently leaves a policy without gradient when another role is scored between its
forward and its backward pass; here trainability is fixed when a role is added. Forward and backward of one role must
still not be interleaved with another role's.

Shapes: B batch, T prompt+response, N selected tokens, V vocabulary, H hidden.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from alignment.data.encoded_dialogues import Encoder
from alignment.errors import UserError
from alignment.models.model_places import first_line
from alignment.models.weights_from_files import read_weights
from alignment.settings.sections import LoraSection

ROW_MULTIPLE = 128
"""Rows that logits are made for: a multiple of this."""


class Backbone:
    """A frozen causal LM, its tokenizer, and named LoRA adapters on it."""

    def __init__(
        self, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, encoder: Encoder, *, sampling_copy: bool
    ) -> None:
        """Freeze a base; ``alignment.models.pretrained.load_base`` makes one from a folder.

        Args:
            base: a causal LM.
            tokenizer: its tokenizer, to be saved with it.
            encoder: from messages to its token ids, and back.
            sampling_copy: keep a second copy of the base with the adapter merged in, to sample faster.
        """
        base.requires_grad_(False)
        self.tokenizer = tokenizer
        self.encoder = encoder
        self.base = base
        self.path = str(base.config._name_or_path)
        self.trust_remote_code = False
        self.unexpected_weights: list[str] = []
        self.peft: PeftModel | None = None
        self._lora_layers: list[LoraLayer] = []
        self._copy = copy.deepcopy(base) if sampling_copy else None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.base.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of activations."""
        weight = self.base.get_input_embeddings().weight
        assert isinstance(weight, Tensor)
        return weight.dtype

    @property
    def hidden_size(self) -> int:
        """Width H of the trunk."""
        return int(self.base.config.get_text_config().hidden_size)

    @property
    def context_tokens(self) -> int:
        """Longest dialogue the base can read."""
        return int(self.base.config.get_text_config().max_position_embeddings)

    # -- adapters ------------------------------------------------------------------------------------------------

    def check_layers(self, lora: LoraSection) -> None:
        """Raise ``UserError`` where a layer that is to get an adapter is not in the model."""
        linear = sorted(
            {path.rpartition(".")[2] for path, module in self.base.named_modules() if isinstance(module, nn.Linear)}
        )
        wanted = [] if isinstance(lora.target_modules, str) else lora.target_modules
        paths = [path for path, _ in self.base.named_modules()]
        unknown = [name for name in wanted if not any(path == name or path.endswith(f".{name}") for path in paths)]
        if unknown:
            raise UserError(
                f"model.lora.target_modules={wanted}: the model has no {', '.join(unknown)}; it has {', '.join(linear)}"
            )

    def add_adapter(self, name: str, lora: LoraSection, *, trainable: bool = True) -> None:
        """Add a fresh adapter (its update starts at zero)."""
        self._inject(name, _lora_config(lora, self.path))
        self._set_trainable(name, trainable)

    def trainable_copy(
        self,
        adapter: str | None,
        *,
        setting: str = "ppo.train=full and ppo.value=model",
        instead: str = "ppo.train=lora with ppo.value=adapter or head",
    ) -> Backbone:
        """A second model with an adapter merged in and every weight trainable: for full training of one role.

        Args:
            adapter: what to merge; ``None``: nothing.
            setting: what in the recipe asks for it, for the error.
            instead: what to use with a base in 4 bits.

        Raises:
            UserError: the base is in 4 bits, which cannot be trained.
        """
        self._check_full_precision(setting, instead)
        merged = copy.deepcopy(self.peft if self.peft is not None else self.base)
        if isinstance(merged, PeftModel):
            tuner = cast(Any, merged)
            merged = tuner.unload() if adapter is None else tuner.merge_and_unload(adapter_names=[adapter])
        other = Backbone(cast(PreTrainedModel, merged), self.tokenizer, self.encoder, sampling_copy=False)
        other.base.requires_grad_(True)
        return other

    def _check_full_precision(self, what: str, instead: str) -> None:
        if self.base.config.to_dict().get("quantization_config"):
            raise UserError(f"{what} cannot train 4-bit weights; use {instead}, or model.quantization=none")

    def train_adapter(self, name: str, lora: LoraSection) -> nn.Module:
        """Add a fresh trainable adapter and return the model to hand to a trainer."""
        self.add_adapter(name, lora)
        assert self.peft is not None
        return self.peft

    def unfreeze(self) -> nn.Module:
        """Make every weight of the base trainable (full fine-tuning) and return the base."""
        self._check_full_precision("sft.method=full", "sft.method=lora")
        self.base.requires_grad_(True)
        return self.base

    def load_adapter(self, name: str, folder: Path, *, trainable: bool = False) -> None:
        """Add an adapter from a folder that ``save_adapter`` (or PEFT) wrote.

        Raises:
            UserError: a file is missing, or a weight is missing, unknown or of another shape.
        """
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            if not (folder / file).is_file():
                raise UserError(f"{folder}: not an adapter, {file} is missing")
        try:
            config = cast(LoraConfig, LoraConfig.from_pretrained(str(folder)))
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{folder / 'adapter_config.json'}: no settings of an adapter ({first_line(error)})"
            ) from error
        config.base_model_name_or_path = self.path  # where the base is now; PEFT warns of a run folder that has moved
        state = read_weights(folder / "adapter_model.safetensors")
        self._inject(name, config)
        self._set_adapter_state(name, state, origin=str(folder))
        self._set_trainable(name, trainable)

    def copy_adapter(self, source: str, target: str, *, trainable: bool) -> None:
        """Add an adapter with the weights that another one has now."""
        assert self.peft is not None, "no adapter to copy from"
        config = cast(LoraConfig, copy.deepcopy(self.peft.peft_config[source]))
        self._inject(target, config)
        self._set_adapter_state(target, self.adapter_state(source), origin=source)
        self._set_trainable(target, trainable)

    def adapter_state(self, name: str) -> dict[str, Tensor]:
        """The weights of one adapter by PEFT's names, detached copies."""
        return {key: parameter.detach().clone() for key, parameter in self._named_adapter_parameters(name)}

    @torch.no_grad()
    def _set_adapter_state(self, name: str, state: dict[str, Tensor], *, origin: str) -> None:
        # PEFT's own loader lets missing weights stay as they were initialised.
        parameters = dict(self._named_adapter_parameters(name))
        for key in sorted(parameters.keys() | state.keys()):
            if key not in state or key not in parameters or state[key].shape != parameters[key].shape:
                wrong = "missing" if key not in state else "unknown" if key not in parameters else "of another shape"
                raise UserError(f"{origin}: adapter does not fit this base model ({key} is {wrong})")
        for key, parameter in parameters.items():
            parameter.copy_(state[key])

    def save_adapter(self, name: str, folder: Path) -> None:
        """Write one adapter as a standard PEFT folder (safetensors and JSON)."""
        assert self.peft is not None
        folder.mkdir(parents=True, exist_ok=True)
        state = {key: value.contiguous().cpu() for key, value in self.adapter_state(name).items()}
        save_file(state, str(folder / "adapter_model.safetensors"), metadata={"format": "pt"})
        config = cast(LoraConfig, copy.deepcopy(self.peft.peft_config[name]))
        config.inference_mode = True
        if isinstance(config.target_modules, set):
            config.target_modules = sorted(config.target_modules)  # a set is written in another order by each process
        config.save_pretrained(str(folder))

    def adapter_parameters(self, name: str) -> list[nn.Parameter]:
        """The parameters of one adapter, in a fixed order."""
        return [parameter for _, parameter in self._named_adapter_parameters(name)]

    def _named_adapter_parameters(self, name: str) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters of one adapter with the names that PEFT gives them in files: without the adapter's."""
        assert self.peft is not None
        for key, parameter in self.peft.named_parameters():
            before, found, after = key.partition(".lora_")
            kind, _, rest = after.partition(".")
            if found and rest.startswith(f"{name}."):
                yield f"{before}{found}{kind}.{rest.removeprefix(f'{name}.')}", parameter

    def _inject(self, name: str, config: LoraConfig) -> None:
        # Adapters stay in the base's number format: a float32 adapter on a bfloat16 base makes every forward
        # pass slower. Optimisers keep float32 master copies (alignment.models.optimizer_and_trainer).
        if self.peft is None:
            self.peft = get_peft_model(self.base, config, adapter_name=name, autocast_adapter_dtype=False)
        else:
            self.peft.add_adapter(name, config, autocast_adapter_dtype=False)
        self.peft.eval()
        self._lora_layers = [module for module in self.peft.modules() if isinstance(module, LoraLayer)]
        if any(
            layer in self._lora_layers
            for layer in (self.base.get_input_embeddings(), self.base.get_output_embeddings())
        ):
            raise UserError(
                f"model.lora.target_modules={config.target_modules}: embeddings and the output layer (lm_head) are "
                "shared by all roles and take no adapter; leave them out"
            )

    def _set_trainable(self, name: str, trainable: bool) -> None:
        for parameter in self.adapter_parameters(name):
            parameter.requires_grad_(trainable)

    @contextmanager
    def role(self, name: str | None) -> Iterator[None]:
        """Use one adapter (``None``: the bare base) inside the block; never touches ``requires_grad``."""
        if name is not None and (self.peft is None or name not in self.peft.peft_config):
            known = ", ".join(self.peft.peft_config) if self.peft is not None else "none yet"
            raise ValueError(f"no adapter {name!r}; there are: {known}")
        before = [(layer._active_adapter, layer._disable_adapters) for layer in self._lora_layers]
        for layer in self._lora_layers:
            layer._active_adapter = [name] if name is not None else []
            layer._disable_adapters = name is None
        try:
            yield
        finally:
            for layer, (active, disabled) in zip(self._lora_layers, before, strict=True):
                layer._active_adapter, layer._disable_adapters = active, disabled

    # -- passes --------------------------------------------------------------------------------------------------

    def hidden_states(self, token_ids: Tensor, lengths: Tensor) -> Tensor:
        """Last hidden states of right-padded sequences under the current role.

        Args:
            token_ids: (B, T), padded on the right with anything.
            lengths: (B,) tokens that count.

        Returns:
            (B, T, H); positions past the length hold garbage.
        """
        mask = torch.arange(token_ids.shape[1], device=token_ids.device) < lengths.to(token_ids.device)[:, None]
        output = self.base.base_model(input_ids=token_ids, attention_mask=mask.long(), use_cache=False)
        hidden: Tensor = output.last_hidden_state
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits (N, V) of selected hidden states (N, H)."""
        return output_logits(self.base, hidden)

    # -- sampling and export -------------------------------------------------------------------------------------

    @contextmanager
    def sampling_model(self, name: str | None) -> Iterator[PreTrainedModel]:
        """A causal LM to generate with under a role: a merged copy where configured, else the base with its adapter.

        The copy is refilled from the base each time, never merged and unmerged in place: that drifts in bfloat16.
        """
        if self._copy is None:
            with self.role(name):
                yield self.base
        else:
            self._fill_copy(name)
            yield self._copy

    @torch.no_grad()
    def _fill_copy(self, name: str | None) -> None:
        assert self._copy is not None
        targets = dict(self._copy.named_modules())
        for path, layer in self.base.named_modules():
            if not isinstance(layer, LoraLayer):
                continue
            weight = layer.get_base_layer().weight
            if name is not None and name in layer.lora_A:
                weight = weight + cast(Any, layer).get_delta_weight(name).to(weight.dtype)
            targets[path].weight.copy_(weight)


class Role(NamedTuple):
    """Who passes over a dialogue: a model, and the adapter on it (``None``: its bare weights)."""

    backbone: Backbone
    adapter: str | None

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The adapter's parameters, or all weights of a bare model, in a fixed order; frozen ones are left out."""
        backbone, adapter = self
        own = backbone.base.parameters() if adapter is None else backbone.adapter_parameters(adapter)
        return [parameter for parameter in own if parameter.requires_grad]

    def save(self, folder: Path) -> None:
        """Write it: an adapter on the shared base, or a model folder of its own where all weights are trained."""
        backbone, adapter = self
        if adapter is None:
            save_model(backbone.base, backbone.encoder, folder)
            backbone.tokenizer.save_pretrained(str(folder))
        else:
            backbone.save_adapter(adapter, folder)


def _lora_config(lora: LoraSection, base_path: str) -> LoraConfig:
    return LoraConfig(
        r=lora.r,
        lora_alpha=cast(int, lora.alpha),  # a float scale works as well
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
        base_model_name_or_path=base_path,
    )


def output_logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Next-token logits (N, V) of selected hidden states (N, H).

    A new N at nearly every call would have the kernel compiled, and kept in memory, for each: N is rounded up.
    """
    padded = nn.functional.pad(hidden, (0, 0, 0, -len(hidden) % ROW_MULTIPLE))
    logits: Tensor = model.get_output_embeddings()(padded)[: len(hidden)]
    return logits


def save_model(model: PreTrainedModel, encoder: Encoder, folder: Path) -> None:
    """Write a standard model folder whose ``generate`` ends answers where the chat template does."""
    model.generation_config = GenerationConfig(
        bos_token_id=model.config.bos_token_id, eos_token_id=sorted(encoder.stop_ids), pad_token_id=encoder.pad_id
    )
    model.config.use_cache = True
    model.save_pretrained(str(folder))
    model.generation_config, model.config.use_cache = GenerationConfig(), False
