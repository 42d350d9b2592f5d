"""Rejection sampling on a run (section 3.2.3): draw and score candidates, keep the best, fine-tune on the winners."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from trl import SFTConfig

from alignment.data.encoded_dialogues import (
    MARKED,
    EncodedAnswer,
    EncodedDialogue,
    EncodedPrompt,
    encode_dialogues,
    has_mark,
    without_marks,
)
from alignment.data.jsonl_and_raw_rows import read_jsonl, write_jsonl
from alignment.data.readers import load_demonstrations
from alignment.errors import UserError
from alignment.files import resolve
from alignment.models.backbone import Backbone
from alignment.models.optimizer_and_trainer import check_trainer_settings
from alignment.models.sampling.batch_sampling import answer_prompts
from alignment.models.scorers.scorer_protocol import RewardScorer
from alignment.models.sft_trainer import train_sft
from alignment.progress import OnStep
from alignment.reward.gate import gate_named
from alignment.rl.heldout_answers import SCORING_BATCH
from alignment.rl.rejection import Candidate, Winner, encode_winner, order_of_merit, pick_winners
from alignment.run.run_folder import RunFolder
from alignment.run.stage_records import StageRun
from alignment.settings.recipe import Recipe
from alignment.workflow.prompts_and_policies import encoded_for, load_policy, newest_before
from stages.door.progress_and_exit import progress, say_left_out
from stages.ppo.round_inputs import Round


def rejection(inputs: Round) -> dict[str, Any]:
    """Draw K answers per prompt, keep the best, fine-tune a fresh adapter on the winners of all rounds."""
    recipe, folder, backbone, models = inputs.recipe, inputs.folder, inputs.backbone, inputs.models
    if inputs.processes.count > 1:
        raise UserError("rejection sampling runs in one process; make it first, then PPO in several: ppo.method=ppo")
    check_trainer_settings(recipe.sft.trainer, SFTConfig, section="sft.trainer")
    demonstrations, unread = encode_demonstrations(recipe, backbone)
    with folder.lock():
        stage = folder.begin("rejection", recipe, inputs.number)
        with progress("rejection: sampling") as on_step:
            winners, unusable = sample_winners(
                recipe, folder, backbone, models, inputs.prompts, inputs.number, on_step=on_step
            )
        with progress("rejection: fine-tuning") as on_step:
            result = finetune_on_winners(recipe, backbone, winners, demonstrations, stage, on_step=on_step)
        result["left_out"] |= {**{f"demonstrations {reason}": n for reason, n in unread.items()}, **unusable}
        return inputs.finish(stage, "rejection", lambda: result, also=[resolve(recipe.sft.data)])


def sample_winners(
    recipe: Recipe,
    folder: RunFolder,
    backbone: Backbone,
    models: Mapping[str, RewardScorer],
    prompts: Sequence[EncodedPrompt],
    round_number: int,
    *,
    on_step: OnStep,
) -> tuple[list[Winner], dict[str, int]]:
    """The winners of this round, and what was left out of the candidates.

    Candidates are K answers of the newest policy per prompt, and the winners of earlier rounds.

    Args:
        recipe: prompts, answers per prompt, sampling, and how candidates are gated and picked.
        folder: the run; the newest policy of the rounds before answers.
        backbone: the SFT model, with the reward models' adapters.
        models: reward models by dimension; ``safety`` may be missing.
        prompts: training prompts to choose from, encoded for the SFT model.
        round_number: of the round, from 1.
        on_step: called after each batch with (answers so far, all answers, no figures).
    """
    # Choose prompts, and repeat each for its K answers; a policy that is a model of its own reads them its own way.
    settings = recipe.rejection
    chosen = random.Random(f"{recipe.seed}/{round_number}").sample(list(prompts), min(settings.prompts, len(prompts)))
    policy = load_policy(folder, backbone, newest_before(folder, round_number))
    longest, times = settings.sampling.max_new_tokens, settings.samples_per_prompt
    for_policy = encoded_for(policy.role.backbone, chosen, encoded_by=backbone, max_new_tokens=longest)
    asked = [prompt for prompt in for_policy for _ in range(times)]
    repeated = [prompt for prompt in chosen for _ in range(times)]
    # Sample the answers, counting them as they are drawn.
    done = 0

    def count(n: int) -> None:
        nonlocal done
        done += n
        on_step(done, len(repeated), {})

    answers = answer_prompts(policy.role, asked, settings.sampling, on_batch=count)
    # Answers that say something compete with the winners of earlier rounds.
    drawn = [
        Candidate(
            prompt=prompt.prompt,
            answer=backbone.encoder.decode(answer_ids),
            answer_ids=answer_ids,
            round=round_number,
            stopped=stopped,
        )
        for prompt, answer_ids, stopped in zip(repeated, answers.row_ids(), answers.stopped.tolist(), strict=True)
    ]
    speaking = [(prompt, item) for prompt, item in zip(repeated, drawn, strict=True) if item.answer.strip()]
    pool = [(prompt.token_ids, item) for prompt, item in speaking if not has_mark(item.answer, backbone.encoder)]
    left_out = {"candidates empty": len(drawn) - len(speaking), MARKED: len(speaking) - len(pool)}
    pool += [(backbone.encoder.encode_prompt(item.messages), item) for item in _earlier_winners(folder, round_number)]
    # Score all candidates, and pick a winner for each prompt.
    candidates = [item for _, item in pool]
    dialogues = [EncodedAnswer(prompt_ids, item.answer_ids, item.messages) for prompt_ids, item in pool]
    scores = {name: model.score(dialogues, batch_size=SCORING_BATCH) for name, model in models.items()}
    merit, gated = order_of_merit(
        scores["helpfulness"],
        scores.get("safety"),
        torch.tensor([item.prompt.dimension == "safety" for item in candidates]),
        torch.tensor([item.stopped for item in candidates]),
        threshold_probability=recipe.ppo.safety_threshold,
        gate=gate_named(recipe.ppo.gate),
    )
    return pick_winners(candidates, merit, gated, pick=settings.pick, seed=recipe.seed), left_out


def _earlier_winners(folder: RunFolder, round_number: int) -> list[Candidate]:
    """Winners of all earlier rounds, as candidates again."""
    pool: list[Candidate] = []
    for number in range(1, round_number):
        file = folder.stage("rejection", number) / "winners.jsonl"
        for winner in read_jsonl(file, Winner)[0] if file.is_file() else []:
            pool.append(
                Candidate(
                    prompt=winner.prompt,
                    answer=winner.answer,
                    answer_ids=winner.answer_ids,
                    round=winner.round,
                    stopped=winner.stopped,
                )
            )
    return pool


def encode_demonstrations(recipe: Recipe, backbone: Backbone) -> tuple[list[EncodedDialogue], dict[str, int]]:
    """The SFT demonstrations, which are fine-tuned on again with the winners, and reason -> how many were left out."""
    demonstrations, report = load_demonstrations(
        str(resolve(recipe.sft.data)),
        format=recipe.sft.format,
        on_error=recipe.data.on_error,
        unused=recipe.data.unused,
    )
    readable, marked = without_marks(demonstrations, backbone.encoder, on_error=recipe.data.on_error)
    encoded, too_long = encode_dialogues(
        readable,
        backbone.encoder,
        max_length_tokens=min(recipe.sft.max_length_tokens, backbone.context_tokens),
        skip_too_long=recipe.data.too_long == "skip",
    )
    later = {**marked, "too long": too_long}
    say_left_out(report, later)
    return encoded, {**report.skipped, **later}


def finetune_on_winners(
    recipe: Recipe,
    backbone: Backbone,
    winners: Sequence[Winner],
    demonstrations: Sequence[EncodedDialogue],
    stage: StageRun,
    *,
    on_step: OnStep,
) -> dict[str, Any]:
    """Fine-tune a fresh adapter on winners and demonstrations; saves it and the winners.

    Args:
        recipe: settings of the fine-tuning and of the adapter.
        backbone: the SFT model that the adapter is for.
        winners: answers to learn.
        demonstrations: SFT dialogues to learn again beside them, encoded.
        stage: the stage at work; its folder takes the adapter and the winners.
        on_step: called as training goes on with (steps done, all steps, latest figures).

    Returns:
        Figures of the training and of the winners, and what was left out.
    """
    # Keep the winners, and encode those that are short enough.
    write_jsonl(stage.folder / "winners.jsonl", winners)
    limit = min(recipe.sft.max_length_tokens, backbone.context_tokens)
    encoded = [encode_winner(winner, backbone) for winner in winners]
    fitting = [dialogue for dialogue in encoded if len(dialogue.input_ids) <= limit]
    dialogues = [*fitting, *demonstrations]
    # Train with the settings of SFT, except those that rejection sampling has of its own.
    own = recipe.rejection
    settings = recipe.sft.model_copy(
        update={
            "epochs": own.epochs,
            "batch_size_dialogues": own.batch_size_dialogues,
            "micro_batch_size_dialogues": own.micro_batch_size_dialogues,
            "learning_rate": own.learning_rate,
            "max_length_tokens": limit,
        }
    )

    def log(step: int, total: int, figures: dict[str, float]) -> None:
        on_step(step, total, figures)
        stage.log({"step": step, **figures})

    # Train the adapter and save it.
    role = Path(stage.folder).parent.name + "-rejection-training"
    model = backbone.train_adapter(role, recipe.model.lora)
    with backbone.role(role):
        figures = train_sft(model, backbone.tokenizer, dialogues, settings, seed=recipe.seed, on_step=log)
    backbone.save_adapter(role, stage.folder)
    # Average the winners' scores, and the medians of their prompts' candidates to compare them with.
    scores = torch.tensor([winner.score for winner in winners])
    medians = torch.tensor([winner.median_score for winner in winners])
    return {
        **figures,
        "winners": len(winners),
        "demonstrations": len(demonstrations),
        "mean_winner_score": scores.mean().item(),
        "mean_median_score": medians.mean().item(),
        "winners_without_stop": sum(not winner.stopped for winner in winners),
        "left_out": {"winners too long": len(encoded) - len(fitting)},
    }
