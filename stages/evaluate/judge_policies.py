"""Judge every policy of a run on the held-out prompts and write ``report.html`` and ``report.json``.

With ``evaluate.judge=gold`` the toy world's judge, which no training code may see, gives the verdicts.

    python -m stages.evaluate
    python -m stages.evaluate evaluate.sampling.temperature=0.7 overwrite=true
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, get_args

from alignment.data.chat_template import date_of
from alignment.data.encoded_dialogues import EncodedPrompt
from alignment.data.jsonl_and_raw_rows import write_jsonl
from alignment.data.records import Dimension, JudgedAnswer
from alignment.files import read_json, resolve
from alignment.judges.gold_verdicts import JUDGE, check_prompts_known, gold_ceilings, gold_helpfulness, with_verdicts
from alignment.models.backbone import Backbone, Role
from alignment.models.pretrained import load_base
from alignment.models.scorers.reward_model import RewardModel
from alignment.report.write_report import write_report
from alignment.rl.heldout_answers import measure_policy
from alignment.run.run_folder import RunFolder
from alignment.settings.recipe import Recipe
from alignment.workflow.prompts_and_policies import (
    base_of_sft,
    encoded_for,
    heldout_prompts,
    load_backbone,
    load_policy,
    policy_names,
    with_room,
)
from alignment.workflow.training_prompts import check_unseen
from stages.door.preconditions import check_evaluate
from stages.door.progress_and_exit import progress, say, say_left_out
from stages.evaluate.report_figures import assemble_report, check_readable
from stages.evaluate.training_curve import snapshots


def run(recipe: Recipe, round_number: int = 1) -> dict[str, Any]:
    """Make ``round-N/eval/`` and the run's report; returns the report."""
    # Read the held-out prompts, and keep those that leave room for an answer.
    folder = RunFolder(recipe.run_dir)
    check_evaluate(recipe, round_number)
    check_readable(folder, round_number)
    if unseen := check_unseen(recipe, folder, round_number):
        say(f"not compared with the held-out prompts, for it is not here: {', '.join(unseen)}")
    folder.look("eval", recipe)
    prompts, left_out = heldout_prompts(recipe.data)
    gold = recipe.evaluate.judge == "gold"
    if gold:
        check_prompts_known(prompts)
    backbone = load_backbone(folder, recipe.model)
    longest = recipe.evaluate.sampling.max_new_tokens
    encoded, unusable = with_room(backbone, prompts, recipe.data, max_new_tokens=longest)
    prompts = [item.prompt for item in encoded]
    say_left_out(left_out, unusable)
    with folder.lock():
        stage = folder.begin("eval", recipe, round_number)
        # Sample and score every policy; the judge adds its verdicts.
        rows = sample_policies(recipe, folder, backbone, encoded, round_number)
        if gold:
            asked = prompts * recipe.evaluate.answers_per_prompt
            rows = {name: with_verdicts(part, asked) for name, part in rows.items()}
        write_jsonl(
            stage.folder / "answers.jsonl",
            ({"policy": name, **asdict(row)} for name, part in rows.items() for row in part),
        )
        # Put the report together, with the judge's figures where there is one.
        collected = [name for name in get_args(Dimension) if recipe.reward.of(name).data is None]
        comparisons = folder.stage("annotate", round_number) / "heldout_comparisons.jsonl"
        inputs = [resolve(recipe.data.heldout_prompts)] if recipe.data.heldout_prompts else []
        counts = left_out.skipped | {f"prompts {reason}": n for reason, n in unusable.items()}
        report = assemble_report(
            recipe,
            folder,
            round_number,
            prompts=prompts,
            rows=rows,
            judge=JUDGE if gold else None,
            ceilings=gold_ceilings(comparisons, dimensions=collected) if gold else {},
            gold_helpfulness=gold_helpfulness(snapshots(folder, round_number)) if gold else {},
            left_out=counts,
            prompt_files=inputs,
            evaluate_seconds=stage.seconds,
            environment=read_json(stage.folder / "env.json"),
        )
        write_report(report, folder.root)
        # Write the result.
        result = {"policies": list(rows), "left_out": counts}
        folder.finish(stage, result, inputs=inputs)
    return report


def sample_policies(
    recipe: Recipe, folder: RunFolder, backbone: Backbone, prompts: Sequence[EncodedPrompt], round_number: int
) -> dict[str, list[JudgedAnswer]]:
    """Sample and score base, SFT, and this round's rejection and PPO policies, as far as they were made.

    Args:
        recipe: temperature, lengths and answers per prompt.
        folder: the run.
        backbone: the SFT model; the adapters of policies and reward models are loaded onto it.
        prompts: the held-out prompts, encoded for the SFT model.
        round_number: of the round, from 1.

    Returns:
        Policy name -> its answers with scores, without verdicts.
    """
    # Load the round's reward models, if it has any.
    rewards = folder.stage("reward", round_number)
    models = {
        name: RewardModel.load(backbone, name, rewards / name)
        for name in ("helpfulness", "safety")
        if (rewards / name).is_dir() and folder.finished("reward", round_number)
    }
    # See which policies there are, and how many answers each will draw.
    available = policy_names(folder)
    names = ["base", "sft"] + [n for n in ("rejection", "ppo") if f"{n}-{round_number}" in available]
    sampling, times = recipe.evaluate.sampling, recipe.evaluate.answers_per_prompt
    longest = sampling.max_new_tokens
    rows: dict[str, list[JudgedAnswer]] = {}
    drawn = 0
    with progress("evaluate: sampling") as on_step:

        def count_answers(n: int) -> None:
            nonlocal drawn
            drawn += n
            on_step(drawn, len(names) * len(prompts) * times, {})

        measure = partial(measure_policy, sft=Role(backbone, None), reward_models=models, on_batch=count_answers)
        # Policies come from the run; the base model is loaded on its own, and reads prompts with its own tokenizer.
        for name in names:
            if name == "base":
                today = date_of(backbone.encoder.template_source)  # that of the SFT model
                role = Role(load_base(base_of_sft(recipe, folder), recipe.model, today=today), None)
            else:
                role = load_policy(folder, backbone, name if name == "sft" else f"{name}-{round_number}").role
            asked = encoded_for(role.backbone, prompts, encoded_by=backbone, max_new_tokens=longest)
            rows[name] = measure(role, asked * times, sampling)
    return rows
