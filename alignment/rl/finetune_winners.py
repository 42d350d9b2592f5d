"""Rejection sampling on a run: draw and score candidates, add the pool of earlier rounds, fine-tune on the winners."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from alignment.config import Recipe
from alignment.data.dialogue import EncodedAnswer
from alignment.data.loading import encode_dialogues
from alignment.data.records import Demonstration, Message, Prompt, read_jsonl, write_jsonl
from alignment.data.sources import load_demonstrations
from alignment.models.backbone import Backbone
from alignment.models.policies import answer_prompts, load_policy, newest_before
from alignment.models.reward_model import RewardModel
from alignment.models.sft import OnStep, SFTSettings, train_sft
from alignment.resources import resolve
from alignment.rl.rejection import Candidate, Winner, order_of_merit, pick_winners
from alignment.run import RunFolder, StageRun

SCORING_BATCH = 64


def sample_winners(
    recipe: Recipe,
    folder: RunFolder,
    backbone: Backbone,
    models: dict[str, RewardModel],
    prompts: Sequence[Prompt],
    round_number: int,
    *,
    on_step: OnStep,
) -> list[Winner]:
    """The winners of this round: K answers of the newest policy per prompt, against the winners of earlier rounds."""
    settings = recipe.rejection
    chosen = random.Random(f"{recipe.seed}/{round_number}").sample(list(prompts), min(settings.prompts, len(prompts)))
    repeated = [prompt for prompt in chosen for _ in range(settings.samples_per_prompt)]
    policy = load_policy(folder, backbone, newest_before(folder, round_number))
    done = 0

    def count(n: int) -> None:
        nonlocal done
        done += n
        on_step(done, len(repeated), {})

    _, samples = answer_prompts(backbone, policy.role, repeated, settings.sampling, on_batch=count)
    candidates = [
        Candidate(
            prompt=prompt,
            answer=backbone.encoder.decode(item.token_ids),
            answer_ids=item.token_ids,
            round=round_number,
            stopped=item.stopped,
        )
        for prompt, item in zip(repeated, samples, strict=True)
    ]
    candidates = [item for item in candidates if item.answer.strip()] + _earlier_winners(folder, backbone, round_number)
    dialogues = [EncodedAnswer(backbone.encoder.encode_prompt(item.messages), item.answer_ids) for item in candidates]
    scores = {name: model.score(dialogues, batch_size=SCORING_BATCH) for name, model in models.items()}
    merit, gated = order_of_merit(
        scores["helpfulness"],
        scores["safety"],
        torch.tensor([item.prompt.dimension == "safety" for item in candidates]),
        torch.tensor([item.stopped for item in candidates]),
        threshold_probability=recipe.ppo.safety_threshold,
    )
    return pick_winners(candidates, merit, gated, pick=settings.pick, seed=recipe.seed)


def _earlier_winners(folder: RunFolder, backbone: Backbone, round_number: int) -> list[Candidate]:
    """Winners of all earlier rounds, as candidates again."""
    pool: list[Candidate] = []
    for number in range(1, round_number):
        file = folder.stage("rejection", number) / "winners.jsonl"
        if file.is_file():
            for winner in read_jsonl(file, Winner)[0]:
                ids = backbone.encoder.encode_answer(winner.prompt.messages, winner.answer).answer_ids
                pool.append(
                    Candidate(
                        prompt=winner.prompt,
                        answer=winner.answer,
                        answer_ids=ids,
                        round=winner.round,
                        stopped=True,
                    )
                )
    return pool


def finetune_on_winners(
    recipe: Recipe, backbone: Backbone, winners: Sequence[Winner], stage: StageRun, *, on_step: OnStep
) -> dict[str, Any]:
    """Fine-tune a fresh adapter on winners and demonstrations; saves it and the winners; returns the result."""
    write_jsonl(stage.folder / "winners.jsonl", winners)
    demonstrations, _ = load_demonstrations(
        str(resolve(recipe.sft.data)), format=recipe.sft.format, on_error=recipe.data.on_error
    )
    targets = [
        Demonstration(
            id=winner.prompt.id,
            messages=(*winner.prompt.messages, Message(role="assistant", content=winner.answer)),
        )
        for winner in winners
    ]
    limit = min(recipe.sft.max_length_tokens, backbone.context_tokens)
    dialogues, too_long = encode_dialogues(
        [*targets, *demonstrations],
        backbone.encoder,
        max_length_tokens=limit,
        skip_too_long=recipe.data.too_long == "skip",
    )
    settings = SFTSettings(
        epochs=recipe.rejection.epochs,
        batch_size_dialogues=recipe.rejection.batch_size_dialogues,
        micro_batch_size_dialogues=recipe.rejection.micro_batch_size_dialogues,
        learning_rate=recipe.rejection.learning_rate,
        weight_decay=recipe.sft.weight_decay,
        max_length_tokens=limit,
        packing=recipe.sft.packing,
        seed=recipe.seed,
        trainer=recipe.sft.trainer,
    )

    def log(step: int, total: int, figures: dict[str, float]) -> None:
        on_step(step, total, figures)
        stage.log({"step": step, **figures})

    role = Path(stage.folder).parent.name + "-rejection-training"
    model = backbone.train_adapter(role, recipe.model.lora)
    with backbone.role(role):
        figures = train_sft(model, backbone.tokenizer, dialogues, settings, on_step=log)
    backbone.save_adapter(role, stage.folder)
    scores = torch.tensor([winner.score for winner in winners])
    medians = torch.tensor([winner.median_score for winner in winners])
    return {
        **figures,
        "winners": len(winners),
        "demonstrations": len(demonstrations),
        "mean_winner_score": scores.mean().item(),
        "mean_median_score": medians.mean().item(),
        "left_out": {"too long": too_long},
    }
