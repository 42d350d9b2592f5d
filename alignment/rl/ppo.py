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
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from alignment.data.encoded_dialogues import EncodedPrompt
from alignment.errors import UserError
from alignment.machine.device_and_processes import Processes
from alignment.models.backbone import Backbone, Role
from alignment.models.heads.base_head import TokenValueHead
from alignment.models.optimizer_and_trainer import MasterWeightAdamW
from alignment.models.sampling.batch_sampling import SampledAnswers, keyed_noise, sample
from alignment.models.scorers.scorer_protocol import RewardScorer
from alignment.reward.gate import gate_named
from alignment.rl.ppo_math import (
    Advantages,
    KLController,
    clipped_policy_loss,
    clipped_value_loss,
    generalized_advantages,
    shape_scores,
    token_rewards,
    whiten,
)
from alignment.rl.rollout import (
    Episodes,
    GatedRollout,
    Rollout,
    in_micro_batches,
    pad_columns,
    response_pass,
    response_states,
    reward_judgments,
    score_responses,
)
from alignment.settings.ppo_sections import PPOSection


class PPO:
    """The roles, the optimiser, and the six steps of one update."""

    policy_adapter = "policy"
    reference_adapter = "reference"
    value_adapter = "value"

    def __init__(
        self,
        backbone: Backbone,
        reward_models: Mapping[str, RewardScorer],
        settings: PPOSection,
        *,
        seed: int,
        processes: Processes | None = None,
    ) -> None:
        """Freeze a copy of the policy as reference, make the value role, set up the optimiser.

        Args:
            backbone: holds the trainable adapter ``policy``.
            reward_models: ``helpfulness`` and, unless helpfulness alone decides, ``safety``.
            settings: the numbers.
            seed: of the sampling noise and the order of episodes within an update.
            processes: this process and its peers; default: as they were launched.

        Raises:
            UserError: the value role cannot start from this helpfulness model, weights of its own cannot be trained in
                4 bits, or there are more processes than episodes in a minibatch.
        """
        self.backbone = backbone
        self.reward_models = reward_models
        self.settings = settings
        self.seed = seed
        self.processes = processes or Processes()
        if self.processes.count > settings.minibatch_size_episodes:
            raise UserError(
                f"ppo.minibatch_size_episodes={settings.minibatch_size_episodes} does not go round "
                f"{self.processes.count} processes"
            )
        # What the steps need besides models: the gate, the order of episodes, the price of the KL.
        self.gate_scores = gate_named(settings.gate)
        self.generator = torch.Generator().manual_seed(seed)
        self.kl_controller = KLController(
            settings.kl_beta,
            target_nats=settings.kl_target_nats if settings.kl_control == "adaptive" else None,
            horizon_episodes=settings.kl_horizon_episodes,
        )
        # Reference and policy: both start from the same adapter, and only the policy is trained.
        backbone.copy_adapter(self.policy_adapter, self.reference_adapter, trainable=False)
        self.reference = Role(backbone, self.reference_adapter)
        full = settings.train == "full"
        self.policy = Role(backbone.trainable_copy(self.policy_adapter), None) if full else Role(backbone, "policy")
        self.policy_parameters = self.policy.trainable_parameters()
        # Value function: its head and, unless it reads the policy's states, weights of its own.
        self.value, self.value_head = self._make_value_role()
        self.value_parameters = list(self.value_head.parameters())
        if self.value is not None:
            self.value_parameters += self.value.trainable_parameters()
        # One optimiser for both, with a learning rate for each, constant or falling to 0.
        value_rate = settings.value_learning_rate or settings.learning_rate
        self.optimizer = MasterWeightAdamW(
            [{"params": self.policy_parameters}, {"params": self.value_parameters, "lr": value_rate}],
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )
        linear = settings.schedule == "linear"
        self.schedule = LambdaLR(self.optimizer, lambda done: max(1 - done / settings.updates, 0.0) if linear else 1.0)

    def _make_value_role(self) -> tuple[Role | None, TokenValueHead]:
        """The value function's own model or adapter, ``None`` where it reads the policy's states, and its head."""
        if self.settings.value == "head":
            return None, TokenValueHead(self.backbone.hidden_size).to(self.backbone.device)
        whole = self.settings.value == "model"
        start = self.reward_models["helpfulness"].value_start(self.backbone, whole=whole)
        head = TokenValueHead.from_reward_head(start.head)
        if whole:
            return Role(start.role.backbone.trainable_copy(start.role.adapter), None), head
        assert start.role.adapter is not None
        self.backbone.copy_adapter(start.role.adapter, self.value_adapter, trainable=True)
        return Role(self.backbone, self.value_adapter), head

    # -- the six steps -------------------------------------------------------------------------------------------

    def sample(self, prompts: Sequence[EncodedPrompt], update: int) -> Episodes:
        """Draw one answer per prompt from the policy; the noise depends on seed, update and place in the batch."""
        settings = self.settings.sampling
        own = self.processes.share(len(prompts))
        drawn = sample(
            self.policy,
            [prompts[row].token_ids for row in own],
            temperature=settings.temperature,
            max_new_tokens=settings.max_new_tokens,
            batch_size_prompts=settings.batch_size_prompts,
            noise=keyed_noise(self.seed, update, rows=own, max_new_tokens=settings.max_new_tokens),
        )
        joined = partial(self.processes.join_rows, n_rows=len(prompts))
        answers = SampledAnswers(joined(drawn.token_ids), joined(drawn.lengths), joined(drawn.stopped))
        return Episodes.collect(prompts, answers, pad_id=self.backbone.encoder.pad_id, device=self.backbone.device)

    def score(self, episodes: Episodes) -> Rollout:
        """Old and reference log-probabilities, values, and the reward models' scores; each process scores its share."""
        # This process's share of the episodes.
        n_episodes, width = episodes.response_mask.shape
        own = episodes.select(self.processes.share(n_episodes))
        size = self.settings.micro_batch_size_episodes
        passed = partial(
            score_responses,
            episodes=own,
            temperature=self.settings.sampling.temperature,
            micro_batch_size=size,
        )

        def values_of(policy_states: Tensor, rows: slice) -> Tensor:
            return self._values(own, rows, policy_states)

        # Shares are padded to the width of the whole batch before they are joined.
        def joined(rows: Tensor) -> Tensor:
            return self.processes.join_rows(pad_columns(rows, width) if rows.dim() > 1 else rows, n_episodes)

        # One pass each under the policy and the reference, then the reward models.
        policy = passed(self.policy, with_entropy=True, values_of=values_of)
        reference = passed(self.reference)
        judged = reward_judgments(self.reward_models, own, batch_size=size)
        # The results of all processes, as one batch.
        return Rollout(
            episodes=episodes,
            old_logprobs=joined(policy.logprobs),
            ref_logprobs=joined(reference.logprobs),
            entropy=joined(policy.entropy),
            old_values=joined(policy.values),
            helpfulness=joined(judged["helpfulness"].scores),
            safety=joined(judged["safety"].scores) if "safety" in judged else None,
            disagreement={
                name: joined(one.disagreement) for name, one in judged.items() if one.disagreement is not None
            },
        )

    def gate(self, rollout: Rollout) -> GatedRollout:
        """Safety or helpfulness score by the paper's rule, whitened over the batch, then the missing-stop penalty."""
        chosen = self.gate_scores(
            rollout.helpfulness,
            rollout.safety,
            rollout.episodes.is_safety,
            threshold_probability=self.settings.safety_threshold,
        )
        scores = shape_scores(
            chosen.scores,
            rollout.episodes.stopped,
            penalty=self.settings.missing_stop_penalty,
            whitening=self.settings.whiten_scores,
        )
        return GatedRollout(rollout, chosen.scores, chosen.routed_to_safety, scores)

    def token_rewards(self, gated: GatedRollout) -> Tensor:
        """(B, R): minus beta times the KL per token, plus the score on the last real token."""
        rollout = gated.rollout
        return token_rewards(
            rollout.old_logprobs,
            rollout.ref_logprobs,
            gated.scores,
            rollout.episodes.response_mask,
            beta=self.kl_controller.beta,
        )

    def advantages(self, rollout: Rollout, rewards: Tensor) -> Advantages:
        """GAE, advantages whitened over the tokens that count."""
        mask = rollout.episodes.response_mask
        plain = generalized_advantages(
            rewards, rollout.old_values, mask, gamma=self.settings.gamma, lam=self.settings.gae_lambda
        )
        return Advantages(whiten(plain.advantages, mask), plain.returns)

    def update(self, rollout: Rollout, advantages: Advantages, *, train_policy: bool = True) -> dict[str, float]:
        """One optimiser step per minibatch, then beta moves; returns the losses' diagnostics, means over minibatches.

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
        first = {f"policy/first_{key}": history[0][f"policy/{key}"] for key in ("ratio_mean", "approx_kl")}
        means = {key: sum(step[key] for step in history) / len(history) for key in history[0]}
        beta = self.kl_controller.beta
        self.kl_controller.observe(rollout.kl.mean().item(), n_episodes)
        return {"objective/beta": beta, **means, **first, "policy/learning_rate": rate}

    def _minibatch_step(
        self, rollout: Rollout, advantages: Advantages, minibatch: Tensor, *, train_policy: bool
    ) -> dict[str, float]:
        # Gradients of the losses, summed over this process's micro-batches.
        n_tokens = int(rollout.episodes.response_lengths[minibatch].sum())
        own = minibatch[self.processes.share(len(minibatch))]
        totals: dict[str, float] = {}
        policy_masters, value_masters = (group["params"] for group in self.optimizer.param_groups)  # in float32
        self.optimizer.zero_grad()
        for piece in in_micro_batches(len(own), self.settings.micro_batch_size_episodes):
            losses, diagnostics = self._losses(rollout, advantages, own[piece], n_tokens=n_tokens)
            (losses["policy"] * float(train_policy) + self.settings.value_weight * losses["value"]).backward()
            self.optimizer.weights.take_gradients()
            for key, value in diagnostics.items():
                totals[key] = totals.get(key, 0.0) + value
        # Stop at a loss that is not finite, before anything is applied.
        totals = self.processes.sum(totals)
        if not all(math.isfinite(value) for value in totals.values()):
            raise NonFiniteError(f"PPO loss is not finite: {totals}", rollout.episodes, minibatch.tolist())
        if not train_policy:
            # Without a gradient the optimiser skips them: a zero one would still decay them, and a value head on the
            # policy's trunk would train that trunk.
            for master in policy_masters:
                master.grad = None
        # Sum the gradients over the processes, clip each role's norm, and step.
        self.processes.sum_gradients([*policy_masters, *value_masters])
        for name, masters in (("policy", policy_masters), ("value", value_masters)):
            norm = float(nn.utils.clip_grad_norm_(masters, self.settings.max_grad_norm))
            if not math.isfinite(norm):
                message = f"PPO gradient of the {name} is not finite: {totals}"
                raise NonFiniteError(message, rollout.episodes, minibatch.tolist())
            totals[f"{name}/grad_norm"] = norm
        self.optimizer.step()
        return totals

    def _losses(
        self, rollout: Rollout, advantages: Advantages, rows: Tensor, *, n_tokens: int
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Both losses of one micro-batch; they and their diagnostics add up to the minibatch's."""
        # Pass over the micro-batch, cut to its longest response.
        episodes = rollout.episodes
        inputs = episodes.token_ids[rows], episodes.prompt_lengths[rows], episodes.response_lengths[rows]
        new = response_pass(self.policy, *inputs, temperature=self.settings.sampling.temperature)
        width = new.logprobs.shape[1]
        mask = episodes.response_mask[rows, :width]
        # How the policy's new log-probabilities compare with the old ones.
        policy = clipped_policy_loss(
            new.logprobs,
            rollout.old_logprobs[rows, :width],
            advantages.advantages[rows, :width],
            mask,
            clip_range=self.settings.clip_range,
            n_tokens=n_tokens,
        )
        # How far the new values are from the returns.
        value = clipped_value_loss(
            self._values(episodes, rows, new.states),
            rollout.old_values[rows, :width],
            advantages.returns[rows, :width],
            mask,
            clip_range=self.settings.value_clip_range,
            n_tokens=n_tokens,
        )
        # What is logged of the two.
        diagnostics = {
            "policy/loss": policy.loss.item(),
            "policy/ratio_mean": policy.ratio_mean.item(),
            "policy/clip_fraction": policy.clip_fraction.item(),
            "policy/approx_kl": policy.approx_kl.item(),
            "value/loss": value.loss.item(),
            "value/clip_fraction": value.clip_fraction.item(),
        }
        return {"policy": policy.loss, "value": value.loss}, diagnostics

    def state_dict(self) -> dict[str, Any]:
        """All that changes from update to update, for a checkpoint; the frozen base is not in it.

        Nor are torch's own generators, from which nothing here draws: sampling has keyed noise, snapshots are forked.
        """
        return {
            "weights": self.optimizer.weights.masters,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "kl_controller": self.kl_controller.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint: what follows is what would have followed without a stop."""
        self.optimizer.weights.load(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.kl_controller.load_state_dict(state["kl_controller"])
        self.generator.set_state(state["generator"])

    def save_policy(self, folder: Path) -> None:
        """Write the policy: an adapter on the SFT model, or a model folder of its own after full training."""
        self.policy.save(folder)

    def _values(self, episodes: Episodes, rows: slice | Tensor, policy_states: Tensor) -> Tensor:
        """Values (b, r): from the policy's own states, or from a pass of the value role."""
        if self.value is None:
            values: Tensor = self.value_head(policy_states)
            return values
        states = response_states(
            self.value,
            episodes.token_ids[rows],
            episodes.prompt_lengths[rows],
            episodes.response_lengths[rows],
        )
        values = self.value_head(states)
        return values


class NonFiniteError(FloatingPointError):
    """A loss or gradient is not finite; knows the episodes that did it."""

    def __init__(self, message: str, episodes: Episodes, rows: Sequence[int]) -> None:
        super().__init__(message)
        self.episodes = episodes.select(rows)
