"""The recipe's sections: every setting of every stage with its type, default and source.

Numbers of the paper (Touvron et al. 2023) are the defaults for real models, each with its section;
``configs/toy.yaml`` sets what a two-million-parameter model needs instead. How a recipe is read is in
``alignment.config``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from alignment.reward_recipe import (
    HeadSection,
    RewardModelSection,
    RewardSection,
    SafetyRewardModelSection,
    SourceSection,
)
from alignment.settings import Count, Positive, Rate, Section, Share, Weight, check_divides

__all__ = ["HeadSection", "RewardModelSection", "RewardSection", "SafetyRewardModelSection", "SourceSection"]

TOY_MODEL = "toy"


def _divides_dialogues(section: SFTSection | RejectionSection) -> None:
    check_divides(
        section.micro_batch_size_dialogues,
        section.batch_size_dialogues,
        "micro_batch_size_dialogues",
        "batch_size_dialogues",
    )


class LoraSection(Section):
    """Low-rank adapters, one per role."""

    r: Positive = Field(16, description="rank of each adapter")
    alpha: Rate = Field(32, description="scale; the update is alpha/r * B A")
    dropout: Share = Field(0.0, description="dropout in adapters while SFT and reward models train; PPO has none")
    target_modules: Literal["all-linear"] | list[str] = Field("all-linear", description="layers that get an adapter")


class ModelSection(Section):
    """The base model that every stage starts from."""

    name_or_path: str = Field(description="'toy' (pretrained by stages.base), a folder, or a Hub name")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 on GPUs and on processors with AMX or AVX512-BF16, else float32"
    )
    quantization: Literal["none", "nf4"] = Field("none", description="nf4 loads the frozen base in 4 bits")
    trust_remote_code: bool = Field(False, description="run Python code that comes with the model")
    sampling_copy: bool = Field(
        False, description="keep a second copy of the base with the adapter merged in, to sample faster"
    )
    lora: LoraSection = LoraSection()  # type: ignore[call-arg]


class DataSection(Section):
    """Prompts, and what to do with lines that cannot be used."""

    prompts: str = Field(description="training prompts, JSONL")
    heldout_prompts: str | None = Field(None, description="held-out prompts, JSONL; never trained on")
    on_error: Literal["raise", "skip"] = Field("raise", description="malformed line: stop, or skip and count")
    too_long: Literal["raise", "skip"] = Field(
        "raise", description="longer than max_length_tokens: stop, or skip and count"
    )


class BaseSection(Section):
    """Pretraining of the toy base model."""

    corpus: str = Field("data/toy/pretraining.jsonl", description="documents, JSONL with a 'text' key")
    steps: Positive = Field(900, description="optimiser steps")
    batch_size_documents: Positive = Field(32, description="documents per step")
    learning_rate: Rate = Field(3e-2, description="peak, of AdamW on embeddings; linear warm-up, then linear to 0")
    matrix_learning_rate: Rate = Field(8e-3, description="peak, of Muon on the matrices of the blocks; same schedule")
    question_noise: Share = Field(
        0.3, description="share of the questions' words that are random ones instead, in every second document"
    )
    question_extra_words: Count = Field(
        8, description="random words at most that stand before or after a question, in every second document"
    )
    warmup_steps: Count = Field(50, description="optimiser steps")
    vocabulary_size: Positive = Field(3072, description="tokens of the byte-level BPE, special ones included")
    hidden_size: Positive = Field(192, description="width H")
    layers: Positive = Field(3, description="transformer blocks")
    heads: Positive = Field(6, description="attention heads; must divide hidden_size")
    context_tokens: Positive = Field(1024, description="longest dialogue")


class SFTSection(Section):
    """Supervised fine-tuning (section 3.1)."""

    data: str = Field(description="curated dialogues: a file or a Hub name")
    format: str = Field("auto", description="auto, tandem, hh, alpaca, trl")
    method: Literal["lora", "full"] = Field("lora", description="what is trained; lora is merged when saved")
    epochs: Rate = Field(2, description="passes over the data; section 3.1")
    batch_size_dialogues: Positive = Field(64, description="dialogues per optimiser step; section 3.1")
    micro_batch_size_dialogues: Positive = Field(8, description="dialogues per forward pass; divides the batch size")
    learning_rate: Rate = Field(2e-5, description="initial, cosine to 10 %; section 3.1")
    weight_decay: Weight = Field(0.1, description="section 3.1")
    max_length_tokens: Positive = Field(4096, description="section 3.1")
    packing: bool = Field(
        True, description="fill sequences with several dialogues, no attention across them; section 3.1"
    )
    trainer: dict[str, Any] = Field({}, description="passed on to TRL's SFTConfig")

    @model_validator(mode="after")
    def _batch_divides(self) -> SFTSection:
        _divides_dialogues(self)
        return self


class SamplingSection(Section):
    """How answers are drawn. No top-k and no top-p: what is sampled is what is trained."""

    temperature: Rate = Field(1.0, description="divides the logits")
    max_new_tokens: Positive = Field(400, description="longest answer")
    batch_size_prompts: Positive = Field(64, description="prompts decoded together")


class AnnotateSection(Section):
    """Collection of comparisons (section 3.2.1)."""

    source: Literal["simulated", "dataset", "ui"] = Field(
        "simulated", description="who compares; ui: people, in the browser app"
    )
    data: str | None = Field(None, description="comparisons file or Hub name, for source=dataset")
    format: str = Field("auto", description="auto, tandem, hh, alpaca, alpaca_eval, trl")
    dimension: Literal["helpfulness", "safety"] = Field(
        "helpfulness", description="dimension of a dataset's comparisons"
    )
    helpfulness_pairs: Count = Field(3000, description="training comparisons about helpfulness")
    safety_pairs: Count = Field(1500, description="training comparisons about safety")
    heldout_helpfulness_pairs: Count = Field(1000, description="pairs on held-out prompts, for evaluation only")
    heldout_safety_pairs: Count = Field(1000, description="pairs on held-out prompts, for evaluation only")
    heldout_overlap: Positive = Field(1, description="simulated annotators who compare each held-out pair, 1 to 6")
    ui_settings: str = Field("configs/annotation.yaml", description="settings of the app, for source=ui")
    ui_port: Count = Field(7860, description="where the app listens, for source=ui; 0: any free port")
    temperatures: tuple[Rate, Rate] = Field((1.0, 1.2), description="of the two variants that answer")
    max_new_tokens: Positive = Field(400, description="longest answer")
    batch_size_prompts: Positive = Field(64, description="prompts decoded together")


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
        _divides_dialogues(self)
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
        20, description="write down held-out answers this often, for the reward-against-KL plot; 0: never"
    )
    snapshot_prompts: Count = Field(64, description="held-out prompts answered at each snapshot")
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


class EvaluateSection(Section):
    """Judging every policy of a run on the held-out prompts."""

    judge: Literal["gold", "none"] = Field("none", description="gold: the toy world's judge; none: reward models only")
    answers_per_prompt: Positive = Field(1, description="answers of each policy to each held-out prompt")
    samples: Positive = Field(12, description="prompts shown side by side in the report, drawn by seed")
    sampling: SamplingSection = SamplingSection()  # type: ignore[call-arg]


class ExportSection(Section):
    """A reward model or a policy as a folder for other programs."""

    what: Literal["helpfulness", "safety", "policy"] = Field(
        "helpfulness", description="a reward model with a linear head, or the newest policy"
    )
    round: Positive | None = Field(None, description="of which round; default: the latest")
    form: Literal["merged", "adapter"] = Field(
        "merged", description="a whole model with the adapter merged in, or an adapter in PEFT's format"
    )
    to: str | None = Field(None, description="folder to make; default: export/WHAT in the run folder")


class Recipe(Section):
    """Everything about one experiment."""

    run_dir: str = Field(description="folder of this experiment")
    seed: Count = Field(0, description="of every random choice")
    rounds: Positive = Field(1, description="annotate, reward and ppo, this many times")
    overwrite: bool = Field(False, description="run a finished stage again")
    plugins: list[str] = Field([], description="Python files of yours that register reward heads, losses or gates")
    model: ModelSection
    data: DataSection
    base: BaseSection = BaseSection()  # type: ignore[call-arg]
    sft: SFTSection
    annotate: AnnotateSection = AnnotateSection()  # type: ignore[call-arg]
    reward: RewardSection = RewardSection()  # type: ignore[call-arg]
    rejection: RejectionSection = RejectionSection()  # type: ignore[call-arg]
    ppo: PPOSection = PPOSection()  # type: ignore[call-arg]
    evaluate: EvaluateSection = EvaluateSection()  # type: ignore[call-arg]
    export: ExportSection = ExportSection()  # type: ignore[call-arg]
