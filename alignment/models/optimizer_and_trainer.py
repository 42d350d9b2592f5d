"""AdamW with float32 master weights, its schedule, and what SFT and reward models share of Transformers' ``Trainer``.

Adding a step of 1e-3 to a bfloat16 weight near 1 changes nothing (eight bits of mantissa), so training directly in
bfloat16 stalls. The optimiser therefore steps float32 copies and the result is rounded into the model (Micikevicius
et al. 2018, section 3.1). For float32 parameters the copies are the parameters themselves.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainingArguments, get_cosine_with_min_lr_schedule_with_warmup_lr_rate

from alignment.errors import UserError
from alignment.progress import OnStep


class MasterWeights:
    """Float32 copies of some parameters, and the traffic between the two."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self.masters: list[Tensor] = [
            p if p.dtype == torch.float32 else p.detach().float().clone() for p in self.parameters
        ]

    def take_gradients(self) -> None:
        """Add the model's gradients to those of the masters, so that several backward passes are summed in float32."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            if master is not parameter and parameter.grad is not None:
                found = parameter.grad.float()
                master.grad = found if master.grad is None else master.grad + found
                parameter.grad = None

    def forget_taken(self) -> None:
        """Clear what was taken: a trainer that clears the model's gradients knows nothing of the masters'."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            if master is not parameter:
                master.grad = None

    @torch.no_grad()
    def write_back(self) -> None:
        """Round the masters into the model."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            if master is not parameter:
                parameter.copy_(master)

    @torch.no_grad()
    def load(self, masters: Sequence[Tensor]) -> None:
        """Take over masters from a checkpoint, in the same order."""
        for own, saved in zip(self.masters, masters, strict=True):
            own.copy_(saved)
        self.write_back()

    def clear_gradients(self) -> None:
        """Forget the gradients of both."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            parameter.grad = master.grad = None


class MasterWeightAdamW(torch.optim.AdamW):
    """``torch.optim.AdamW`` over float32 masters of the given parameters.

    Args:
        groups: dicts with ``params`` and their own ``lr`` or ``weight_decay``, as for any torch optimiser.
        lr: learning rate.
        betas: decay of the two moments; default from the paper (section 3.2.2).
        eps: default from the paper.
        weight_decay: default from the paper.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        *,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-5,
        weight_decay: float = 0.1,
    ) -> None:
        given = [{**group, "params": list(group["params"])} for group in groups]
        self.weights = MasterWeights([parameter for group in given for parameter in group["params"]])
        masters = iter(self.weights.masters)
        for group in given:
            group["params"] = [next(masters) for _ in group["params"]]
        super().__init__(given, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Step the masters with the model's gradients, then round them into the model."""
        self.weights.take_gradients()
        loss = super().step(closure)
        self.weights.write_back()
        self.weights.forget_taken()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of the model's parameters."""
        self.weights.clear_gradients()


WARMUP_SHARE = 0.03
"""Share of the steps that warm up; not reported for SFT, taken from the reward models (section 3.2.2)."""


class StepReporter(TrainerCallback):
    """Hands the figures that the Trainer logs to a function."""

    def __init__(self, on_step: OnStep) -> None:
        self.on_step = on_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **unused: Any) -> None:
        """Forward every training log line (the closing summary, which has no loss, is left out).

        Args:
            args: the Trainer's arguments; not used.
            state: holds the current step and the total number of steps.
            control: the Trainer's flags; not used.
            logs: what was logged, by name.
            **unused: other arguments that the Trainer passes to callbacks.

        Raises:
            FloatingPointError: the loss or the gradient is not finite.
        """
        if logs and "loss" in logs:
            for name in ("loss", "grad_norm"):
                if not math.isfinite(float(logs.get(name, 0.0))):
                    raise FloatingPointError(f"{name} is {logs[name]} at step {state.global_step}")
            self.on_step(state.global_step, state.max_steps, {key: float(value) for key, value in logs.items()})


OWNED_BY_THE_RECIPE = frozenset(
    {
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "center_rewards_coefficient",
        "completion_only_loss",
        "disable_tqdm",
        "gradient_accumulation_steps",
        "label_smoothing_factor",
        "learning_rate",
        "logging_nan_inf_filter",
        "logging_steps",
        "loss_type",
        "lr_scheduler_kwargs",
        "lr_scheduler_type",
        "max_length",
        "max_steps",
        "num_train_epochs",
        "optim",
        "optim_args",
        "output_dir",
        "packing",
        "per_device_train_batch_size",
        "report_to",
        "resume_from_checkpoint",
        "save_steps",
        "save_strategy",
        "save_total_limit",
        "seed",
        "warmup_ratio",
        "warmup_steps",
        "weight_decay",
    }
)


def check_trainer_settings(given: dict[str, Any], config: type[TrainingArguments], *, section: str) -> None:
    """Raise ``UserError`` for a setting that TRL does not know or that the recipe itself decides."""
    known = {field.name for field in fields(config)}
    for name in sorted(given):
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise UserError(f"{section}.{name}: {config.__name__} has no such setting{hint}")
        if name in OWNED_BY_THE_RECIPE:
            raise UserError(f"{section}.{name}: the stage decides this one, by the recipe's own settings")


def optimizer_and_schedule(
    parameters: Sequence[nn.Parameter],
    *,
    learning_rate: float,
    weight_decay: float,
    steps: int,
    warmup_steps: int,
) -> tuple[MasterWeightAdamW, torch.optim.lr_scheduler.LambdaLR]:
    """The paper's AdamW with a cosine to 10 % of the peak (sections 3.1 and 3.2.2).

    Args:
        parameters: what is trained.
        learning_rate: the peak, reached after the warm-up.
        weight_decay: decoupled weight decay of AdamW.
        steps: optimiser steps in all, warm-up included.
        warmup_steps: steps in which the rate rises from 0 to the peak.
    """
    optimizer = MasterWeightAdamW([{"params": parameters}], lr=learning_rate, weight_decay=weight_decay)
    schedule = get_cosine_with_min_lr_schedule_with_warmup_lr_rate(
        optimizer, num_warmup_steps=warmup_steps, num_training_steps=steps, min_lr_rate=0.1
    )
    return optimizer, schedule


class StopWhenAsked(TrainerCallback):
    """Ends the training, with a checkpoint, after the step at hand."""

    def __init__(self, asked: Callable[[], bool]) -> None:
        self.asked = asked

    def on_step_end(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        """Ask once a step."""
        if self.asked():
            control.should_save = control.should_training_stop = True
