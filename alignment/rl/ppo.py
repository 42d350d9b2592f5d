"""PPO as Llama-2-Chat used it (section 3.2.3), as six named steps on one batch of prompts.

    sample -> score -> gate -> token_rewards -> advantages -> update

Readings taken where the paper is silent, and departures from it:

1. The reference is the policy that this PPO run starts from (the rejection-sampling checkpoint), frozen.
2. KL is k1 per token inside the reward; gamma 1, lambda 0.95, value clipping as in Huang et al. 2024.
3. Scores are whitened over the global batch after the gate and before the KL; the penalty for an answer that did not
   stop comes after whitening.
4. Losses are normalised by the token count of the whole minibatch, so that any split into micro-batches gives the
   same gradient.

Shapes: B episodes, T prompt+response, R response, H hidden.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from alignment.data.records import Prompt
from alignment.errors import UserError
from alignment.masking import masked_mean, masked_sum, whiten
from alignment.models.backbone import Backbone
from alignment.models.heads import TokenValueHead
from alignment.models.optimizer import MasterWeightAdamW
from alignment.models.reward_model import RewardModel
from alignment.models.sampling import sample
from alignment.recipe import PPOSection
from alignment.reward.gate import ShapedScores, gate, shape_scores
from alignment.rl.advantages import Advantages, generalized_advantages, kl_k1, kl_k3, token_rewards
from alignment.rl.losses import clipped_policy_loss, clipped_value_loss, explained_variance
from alignment.rl.rollout import (
    Episodes,
    Rollout,
    in_micro_batches,
    response_pass,
    response_states,
    reward_scores,
    score_responses,
)


@dataclass(frozen=True)
class GatedRollout:
    """A rollout with its gated and shaped scores."""

    rollout: Rollout
    raw_scores: Tensor
    """(B,) after the gate, before whitening."""
    routed_to_safety: Tensor
    """(B,) bool."""
    shaped: ShapedScores
    """Scores as the policy is paid them."""


def prompt_batches(
    prompts: Sequence[Prompt], batch_size: int, *, seed: int, safety_share: float | None = None
) -> Iterator[list[Prompt]]:
    """Batches without end: each pass over the prompts in a new order, none skipped or repeated within a pass.

    Args:
        prompts: what to train on.
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


def _batches(streams: Sequence[tuple[Iterator[Prompt], int]]) -> Iterator[list[Prompt]]:
    while True:
        yield [next(stream) for stream, count in streams for _ in range(count)]


def _passes(prompts: Sequence[Prompt], generator: torch.Generator) -> Iterator[Prompt]:
    while True:
        for index in torch.randperm(len(prompts), generator=generator).tolist():
            yield prompts[index]


class PPO:
    """The roles, the optimiser, and the six steps of one update."""

    policy_role = "policy"
    reference_role = "reference"
    value_role = "value"

    def __init__(
        self, backbone: Backbone, reward_models: dict[str, RewardModel], settings: PPOSection, *, seed: int
    ) -> None:
        """Freeze a copy of the policy as reference, make the value role, set up the optimiser.

        Args:
            backbone: holds the trainable adapter ``policy``.
            reward_models: ``helpfulness`` and ``safety``.
            settings: the numbers.
            seed: of the order of episodes within an update.
        """
        self.backbone = backbone
        self.reward_models = reward_models
        self.settings = settings
        self.generator = torch.Generator().manual_seed(seed)
        backbone.copy_adapter(self.policy_role, self.reference_role, trainable=False)
        self.policy_parameters = backbone.adapter_parameters(self.policy_role)
        self.value_head = self._make_value_role()
        self.value_parameters = list(self.value_head.parameters())
        if settings.value == "adapter":
            self.value_parameters += backbone.adapter_parameters(self.value_role)
        value_rate = settings.value_learning_rate or settings.learning_rate
        self.optimizer = MasterWeightAdamW(
            [{"params": self.policy_parameters}, {"params": self.value_parameters, "lr": value_rate}],
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )
        linear = settings.schedule == "linear"
        self.schedule = LambdaLR(self.optimizer, lambda done: max(1 - done / settings.updates, 0.0) if linear else 1.0)

    def _make_value_role(self) -> TokenValueHead:
        if self.settings.value == "head":
            return TokenValueHead(self.backbone.hidden_size).to(self.backbone.device)
        helpfulness = self.reward_models["helpfulness"]
        self.backbone.copy_adapter(helpfulness.role, self.value_role, trainable=True)
        return TokenValueHead.from_reward_head(helpfulness.head)

    # -- the six steps -------------------------------------------------------------------------------------------

    def sample(self, prompts: Sequence[Prompt]) -> Episodes:
        """Draw one answer per prompt from the policy."""
        encoder = self.backbone.encoder
        prompt_ids = [encoder.encode_prompt(prompt.messages) for prompt in prompts]
        samples = sample(
            self.backbone,
            prompt_ids,
            role=self.policy_role,
            temperature=self.settings.sampling.temperature,
            max_new_tokens=self.settings.sampling.max_new_tokens,
            batch_size_prompts=self.settings.sampling.batch_size_prompts,
        )
        return Episodes.collect(prompts, prompt_ids, samples, pad_id=encoder.pad_id, device=self.backbone.device)

    def score(self, episodes: Episodes) -> Rollout:
        """Old and reference log-probabilities, values, and both reward models' scores."""
        passed = partial(
            score_responses,
            self.backbone,
            episodes=episodes,
            temperature=self.settings.sampling.temperature,
            micro_batch_size=self.settings.micro_batch_size_episodes,
        )

        def values_of(policy_states: Tensor, rows: slice) -> Tensor:
            return self._values(episodes, rows, policy_states)

        policy = passed(self.policy_role, with_entropy=True, values_of=values_of)
        reference = passed(self.reference_role)
        scores = reward_scores(self.reward_models, episodes, batch_size=self.settings.micro_batch_size_episodes)
        return Rollout(
            episodes=episodes,
            old_logprobs=policy.logprobs,
            ref_logprobs=reference.logprobs,
            entropy=policy.entropy,
            old_values=policy.values,
            helpfulness=scores["helpfulness"],
            safety=scores["safety"],
        )

    def gate(self, rollout: Rollout) -> GatedRollout:
        """Safety or helpfulness score by the paper's rule, whitened over the batch, then the missing-stop penalty."""
        gated = gate(
            rollout.helpfulness,
            rollout.safety,
            rollout.episodes.is_safety,
            threshold_probability=self.settings.safety_threshold,
        )
        shaped = shape_scores(
            gated.scores,
            rollout.episodes.stopped,
            penalty=self.settings.missing_stop_penalty,
            whitening=self.settings.whiten_scores,
        )
        return GatedRollout(rollout, gated.scores, gated.routed_to_safety, shaped)

    def token_rewards(self, gated: GatedRollout) -> Tensor:
        """(B, R): minus beta times the KL per token, plus the score on the last real token."""
        rollout = gated.rollout
        return token_rewards(
            rollout.old_logprobs,
            rollout.ref_logprobs,
            gated.shaped.scores,
            rollout.episodes.response_mask,
            beta=self.settings.kl_beta,
        )

    def advantages(self, rollout: Rollout, rewards: Tensor) -> Advantages:
        """GAE, advantages whitened over the tokens that count."""
        mask = rollout.episodes.response_mask
        plain = generalized_advantages(
            rewards, rollout.old_values, mask, gamma=self.settings.gamma, lam=self.settings.gae_lambda
        )
        return Advantages(whiten(plain.advantages, mask), plain.returns)

    def update(self, rollout: Rollout, advantages: Advantages, *, train_policy: bool = True) -> dict[str, float]:
        """One optimiser step per minibatch; returns the losses' diagnostics, averaged over minibatches.

        Raises:
            FloatingPointError: a loss or gradient is not finite; nothing has been applied from that minibatch.
        """
        size = self.settings.minibatch_size_episodes
        n_episodes = len(rollout.episodes.prompts)
        history: list[dict[str, float]] = []
        for _ in range(self.settings.epochs):
            order = torch.randperm(n_episodes, generator=self.generator)
            for rows in in_micro_batches(n_episodes, size):
                # Sorted rows are sorted by length, so each micro-batch is cut to its own longest row.
                minibatch = order[rows].sort().values
                history.append(self._minibatch_step(rollout, advantages, minibatch, train_policy=train_policy))
        rate = float(self.schedule.get_last_lr()[0])
        self.schedule.step()
        first_ratio = history[0]["policy/ratio_mean"]
        means = {key: sum(step[key] for step in history) / len(history) for key in history[0]}
        return {**means, "policy/first_ratio_mean": first_ratio, "policy/learning_rate": rate}

    def _minibatch_step(
        self, rollout: Rollout, advantages: Advantages, minibatch: Tensor, *, train_policy: bool
    ) -> dict[str, float]:
        n_tokens = int(rollout.episodes.response_lengths[minibatch].sum())
        totals: dict[str, float] = {}
        self.optimizer.zero_grad()
        for piece in in_micro_batches(len(minibatch), self.settings.micro_batch_size_episodes):
            losses, diagnostics = self._losses(rollout, advantages, minibatch[piece], n_tokens=n_tokens)
            if not all(math.isfinite(value) for value in diagnostics.values()):
                raise FloatingPointError(f"PPO loss is not finite: {diagnostics}")
            (losses["policy"] * float(train_policy) + self.settings.value_weight * losses["value"]).backward()
            for key, value in diagnostics.items():
                totals[key] = totals.get(key, 0.0) + value
        if not train_policy:
            # Without a gradient the optimiser skips them: a zero one would still decay them, and a value head on the
            # policy's trunk would train that trunk.
            for parameter in self.policy_parameters:
                parameter.grad = None
        for name, parameters in (("policy", self.policy_parameters), ("value", self.value_parameters)):
            norm = float(nn.utils.clip_grad_norm_(parameters, self.settings.max_grad_norm))
            if not math.isfinite(norm):
                raise FloatingPointError(f"PPO gradient of the {name} is not finite: {totals}")
            totals[f"{name}/grad_norm"] = norm
        self.optimizer.step()
        return totals

    def _losses(
        self, rollout: Rollout, advantages: Advantages, rows: Tensor, *, n_tokens: int
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Both losses of one micro-batch; they and their diagnostics add up to the minibatch's."""
        episodes = rollout.episodes
        inputs = episodes.token_ids[rows], episodes.prompt_lengths[rows], episodes.response_lengths[rows]
        new = response_pass(self.backbone, self.policy_role, *inputs, temperature=self.settings.sampling.temperature)
        width = new.logprobs.shape[1]
        mask = episodes.response_mask[rows, :width]
        policy = clipped_policy_loss(
            new.logprobs,
            rollout.old_logprobs[rows, :width],
            advantages.advantages[rows, :width],
            mask,
            clip_range=self.settings.clip_range,
            n_tokens=n_tokens,
        )
        value = clipped_value_loss(
            self._values(episodes, rows, new.states),
            rollout.old_values[rows, :width],
            advantages.returns[rows, :width],
            mask,
            clip_range=self.settings.value_clip_range,
            n_tokens=n_tokens,
        )
        diagnostics = {
            "policy/loss": policy.loss.item(),
            "policy/ratio_mean": policy.ratio_mean.item(),
            "policy/clip_fraction": policy.clip_fraction.item(),
            "policy/approx_kl": policy.approx_kl.item(),
            "value/loss": value.loss.item(),
            "value/clip_fraction": value.clip_fraction.item(),
        }
        return {"policy": policy.loss, "value": value.loss}, diagnostics

    def _values(self, episodes: Episodes, rows: slice | Tensor, policy_states: Tensor) -> Tensor:
        """Values (b, r): from the policy's own states, or from a pass of the value adapter."""
        if self.settings.value == "head":
            values: Tensor = self.value_head(policy_states)
            return values
        states = response_states(
            self.backbone,
            self.value_role,
            episodes.token_ids[rows],
            episodes.prompt_lengths[rows],
            episodes.response_lengths[rows],
        )
        values = self.value_head(states)
        return values


def rollout_metrics(gated: GatedRollout, advantages: Advantages) -> dict[str, float]:
    """What one batch says about the policy, before the update."""
    rollout, episodes = gated.rollout, gated.rollout.episodes
    mask = episodes.response_mask
    kl_per_answer = masked_sum(kl_k1(rollout.old_logprobs, rollout.ref_logprobs), mask, dim=1)
    k3_per_answer = masked_sum(kl_k3(rollout.old_logprobs, rollout.ref_logprobs), mask, dim=1)
    return {
        "objective/kl": kl_per_answer.mean().item(),
        "objective/kl_k3": k3_per_answer.mean().item(),
        "objective/entropy": masked_mean(rollout.entropy, mask).item(),
        "objective/score": gated.raw_scores.mean().item(),
        "objective/score_std": gated.raw_scores.std(correction=0).item(),
        "objective/helpfulness": rollout.helpfulness.mean().item(),
        "objective/safety": rollout.safety.mean().item(),
        "objective/routed_to_safety": gated.routed_to_safety.float().mean().item(),
        "rollout/length": episodes.response_lengths.float().mean().item(),
        "rollout/stop_rate": episodes.stopped.float().mean().item(),
        "value/explained_variance": explained_variance(rollout.old_values, advantages.returns, mask).item(),
    }
