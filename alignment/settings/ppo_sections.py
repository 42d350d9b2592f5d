"""Settings of rejection sampling and PPO (section 3.2.3); the paper's values are the defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from alignment.settings.sections import (
    Count,
    Positive,
    Rate,
    SamplingSection,
    Section,
    Share,
    Weight,
    check_dialogues_divide,
    check_divides,
)


class RejectionSamplingSection(SamplingSection):
    """How candidates are drawn: hotter, as the paper found best for 10 to 100 samples (section 3.2.3)."""

    temperature: Rate = Field(1.2, description="divides the logits; section 3.2.3 (1.2-1.3)")


class RejectionSection(Section):
    """Rejection-sampling fine-tuning (section 3.2.3)."""

    prompts: Positive = Field(10000, description="prompts per round")
    samples_per_prompt: Positive = Field(16, description="K; the best is kept")
    pick: Literal["best", "random"] = Field("best", description="random is the control arm")
    epochs: Rate = Field(2, description="passes over winners and demonstrations")
    batch_size_dialogues: Positive = Field(64, description="dialogues per optimiser step")
    micro_batch_size_dialogues: Positive = Field(8, description="dialogues per forward pass; divides the batch size")
    learning_rate: Rate = Field(2e-5, description="initial, cosine to 10 %")
    sampling: RejectionSamplingSection = RejectionSamplingSection()  # type: ignore[call-arg]

    @model_validator(mode="after")
    def _batch_divides(self) -> RejectionSection:
        check_dialogues_divide(self.micro_batch_size_dialogues, self.batch_size_dialogues)
        return self


class RewardFoldersSection(Section):
    """Reward models that pay the policy; several for one dimension are an ensemble."""

    helpfulness: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="folders or Hub names of reward models, of any base and tokenizer; default: this round's"
    )
    safety: list[str] | None = Field(
        None, description="the same; default: this round's; []: none, so that helpfulness alone decides"
    )
    combine: Literal["mean", "min", "cautious"] = Field(
        "mean", description="score of several for one dimension; cautious: mean less deviations; Coste et al. 2024"
    )
    caution: Weight = Field(1.0, description="deviations between models that combine=cautious takes off")


class PPOSection(Section):
    """Proximal policy optimisation (section 3.2.3)."""

    method: Literal["both", "rejection", "ppo"] = Field("both", description="what stages.ppo runs")
    train: Literal["lora", "full"] = Field(
        "lora", description="what of the policy is trained: an adapter, or all weights of a copy of its own"
    )
    reward_models: RewardFoldersSection = RewardFoldersSection()  # type: ignore[call-arg]
    updates: Positive = Field(300, description="iterations; section 3.2.3 (200-400)")
    batch_size_episodes: Positive = Field(512, description="prompts, one answer each, per update; section 3.2.3")
    minibatch_size_episodes: Positive = Field(64, description="episodes per optimiser step; section 3.2.3")
    micro_batch_size_episodes: Positive = Field(8, description="episodes per forward pass; divides the minibatch")
    epochs: Positive = Field(1, description="passes over each batch; section 3.2.3")
    learning_rate: Rate = Field(1e-6, description="section 3.2.3")
    schedule: Literal["constant", "linear"] = Field(
        "constant", description="of both rates: constant as in section 3.2.3, or linear to 0 after the last update"
    )
    value_learning_rate: Rate | None = Field(None, description="of the value role; default: learning_rate")
    weight_decay: Weight = Field(0.1, description="section 3.2.3")
    max_grad_norm: Rate = Field(1.0, description="section 3.2.3")
    clip_range: Rate = Field(0.2, description="of the probability ratio; section 3.2.3")
    value_clip_range: Rate = Field(0.2, description="of the value; not in the paper, from Huang et al. 2024")
    value_weight: Weight = Field(0.1, description="of the value loss; Huang et al. 2024")
    kl_beta: Weight = Field(0.01, description="weight of the KL per token in the reward; section 3.2.3")
    kl_control: Literal["fixed", "adaptive"] = Field(
        "fixed", description="of beta: fixed as in section 3.2.3, or steered to a target (Ziegler et al. 2019)"
    )
    kl_target_nats: Rate = Field(6.0, description="KL per answer that the adaptive controller aims at")
    kl_horizon_episodes: Positive = Field(10000, description="episodes in which the adaptive controller reacts")
    kl_budget_nats: Rate | None = Field(
        None, description="stop before the update after the KL per answer has reached this; default: no limit"
    )
    gamma: Share = Field(1.0, description="discount")
    gae_lambda: Share = Field(0.95, description="GAE, Schulman et al. 2016")
    value: Literal["adapter", "head", "model"] = Field(
        "adapter",
        description="adapter and head started from the helpfulness model; a head on the policy's trunk; or adapter's "
        "start with all weights trained, in a model of its own",
    )
    safety_share: Share | None = Field(
        None, description="share of safety prompts in every batch; default: as many as there are among the prompts"
    )
    gate: str = Field(
        "threshold", description="how the two scores become one: a name from alignment.reward.gate.GATES; section 3.2.3"
    )
    safety_threshold: Annotated[float, Field(gt=0, lt=1)] = Field(0.15, description="gate; section 3.2.3")
    missing_stop_penalty: Weight = Field(1.0, description="taken off the whitened score of an answer that did not stop")
    whiten_scores: bool = Field(True, description="over the global batch; section 3.2.3")
    snapshot_every_updates: Count = Field(
        20,
        description="write down answers to selection prompts this often, for the reward-against-KL plot; 0: never",
    )
    snapshot_prompts: Count = Field(64, description="selection prompts answered at each snapshot")
    warmup_value_updates: Count = Field(0, description="first updates that train the value role only")
    keep: Literal["last", "best"] = Field(
        "last",
        description="the policy of the last update, or of the snapshot that the guard (without one: the reward models) "
        "scored best",
    )
    on_overoptimization: Literal["warn", "stop"] = Field(
        "warn", description="when the guard falls while the reward rises: say so, or stop and keep the best snapshot"
    )
    save_steps: Positive = Field(10, description="updates between checkpoints")
    save_total_limit: Positive = Field(2, description="checkpoints kept")
    sampling: SamplingSection = SamplingSection()  # type: ignore[call-arg]

    @model_validator(mode="after")
    def _beta_stays_positive(self) -> PPOSection:
        if self.kl_control == "adaptive" and self.kl_horizon_episodes < self.batch_size_episodes:
            raise ValueError(
                f"kl_horizon_episodes ({self.kl_horizon_episodes}) must be at least batch_size_episodes "
                f"({self.batch_size_episodes})"
            )
        return self

    @model_validator(mode="after")
    def _batches_divide(self) -> PPOSection:
        check_divides(
            self.minibatch_size_episodes,
            self.batch_size_episodes,
            "minibatch_size_episodes",
            "batch_size_episodes",
        )
        check_divides(
            self.micro_batch_size_episodes,
            self.minibatch_size_episodes,
            "micro_batch_size_episodes",
            "minibatch_size_episodes",
        )
        return self
