"""Judge every policy of a run on the held-out prompts and write ``report.html`` and ``report.json``.

With ``evaluate.judge=gold`` the toy world's judge, which no training code may see, gives the verdicts.

    python -m stages.evaluate
    python -m stages.evaluate evaluate.sampling.temperature=0.7 overwrite=true
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from alignment.config import Recipe
from alignment.data.loading import fitting_prompts, heldout_prompts
from alignment.data.records import Comparison, Prompt, read_jsonl, write_jsonl
from alignment.errors import UserError
from alignment.evaluation import JudgedAnswer, accuracy_by_grade
from alignment.measuring import measure_policy
from alignment.models.backbone import Backbone
from alignment.models.policies import load_backbone, load_policy, policy_names
from alignment.models.reward_model import RewardModel
from alignment.report.assemble import assemble_report
from alignment.report.writer import write_report
from alignment.rl.snapshots import Snapshot
from alignment.run import RunFolder
from alignment.toy.judge import judge, utility
from alignment.toy.world import lookup
from stages.base_path import base_model_path
from stages.runner import progress, run, say_left_out

JUDGE = "gold judge of the toy world"


def main(recipe: Recipe, round_number: int = 1) -> dict[str, Any]:
    """Make ``round-N/eval/`` and the run's report; returns the report."""
    folder = RunFolder(recipe.run_dir)
    folder.require("sft", command="python -m stages.sft")
    folder.check_not_finished("eval", recipe, round_number)
    prompts, left_out = heldout_prompts(recipe)
    if not prompts:
        raise UserError("stages.evaluate needs prompts to judge on: give data.heldout_prompts=FILE")
    gold = recipe.evaluate.judge == "gold"
    if gold and (unknown := next((p for p in prompts if lookup(p.messages) is None), None)):
        raise UserError(
            f"the gold judge does not know prompt {unknown.id}; it knows the toy world only. Pass evaluate.judge=none."
        )
    backbone = load_backbone(folder, recipe.model)
    prompts, too_long = fitting_prompts(
        prompts,
        backbone.encoder,
        max_new_tokens=recipe.evaluate.sampling.max_new_tokens,
        context_tokens=backbone.context_tokens,
        skip_too_long=recipe.data.too_long == "skip",
    )
    say_left_out(left_out, too_long)
    with folder.lock():
        stage = folder.begin("eval", recipe, round_number)
        rows = sample_policies(recipe, folder, backbone, prompts, round_number)
        if gold:
            rows = {
                name: [with_verdict(row, p) for row, p in zip(part, prompts, strict=True)]
                for name, part in rows.items()
            }
        write_jsonl(
            stage.folder / "answers.jsonl",
            ({"policy": name, **asdict(row)} for name, part in rows.items() for row in part),
        )
        report = assemble_report(
            recipe,
            folder,
            round_number,
            prompts=prompts,
            rows=rows,
            judge=JUDGE if gold else None,
            ceilings=gold_ceilings(folder, round_number) if gold else {},
            gold_curve=gold_curve(folder, round_number) if gold else {},
            evaluate_seconds=stage.seconds,
        )
        write_report(report, folder.root)
        counts = {**left_out.skipped, "prompts too long": too_long}
        folder.finish(stage, {"policies": list(rows), "left_out": counts}, inputs=[folder.stage("sft")])
    return report


def sample_policies(
    recipe: Recipe, folder: RunFolder, backbone: Backbone, prompts: Sequence[Prompt], round_number: int
) -> dict[str, list[JudgedAnswer]]:
    """Base, SFT, and this round's rejection and PPO policies, as far as they were made."""
    rewards = folder.stage("reward", round_number)
    models = {
        name: RewardModel.load(backbone, name, rewards / name)
        for name in ("helpfulness", "safety")
        if (rewards / name).is_dir() and folder.finished("reward", round_number)
    }
    available = policy_names(folder)
    names = ["base", "sft"] + [n for n in ("rejection", "ppo") if f"{n}-{round_number}" in available]
    rows: dict[str, list[JudgedAnswer]] = {}
    with progress("evaluate: sampling") as on_step:
        for name in names:
            if name == "base":
                own = Backbone.load(base_model_path(recipe, folder), recipe.model)
                role = None
            else:
                own = backbone
                role = load_policy(folder, backbone, name if name == "sft" else f"{name}-{round_number}").role
            rows[name] = measure_policy(
                own, role, prompts, recipe.evaluate.sampling, sft_backbone=backbone, reward_models=models
            )
            on_step(len(rows) * len(prompts), len(names) * len(prompts), {})
    return rows


def with_verdict(row: JudgedAnswer, prompt: Prompt) -> JudgedAnswer:
    """The answer with the gold judge's verdict."""
    verdict = judge(prompt.messages, row.answer)
    return replace(row, helpfulness=verdict.helpfulness, unsafe=verdict.unsafe, refusal=verdict.refusal)


def gold_ceilings(folder: RunFolder, round_number: int) -> dict[str, dict[str, Any]]:
    """How often the gold judge agrees with the annotators' held-out choices: no reward model can be expected above."""
    file = folder.stage("annotate", round_number) / "heldout_comparisons.jsonl"
    if not file.is_file():
        return {}
    comparisons, _ = read_jsonl(file, Comparison)
    ceilings = {}
    for dimension in ("helpfulness", "safety"):
        own = [item for item in comparisons if item.dimension == dimension]
        gaps = [
            utility(judge(item.prompt, item.chosen_text), item.dimension)
            - utility(judge(item.prompt, item.rejected_text), item.dimension)
            for item in own
        ]
        if own:
            ceilings[dimension] = accuracy_by_grade(
                gaps, [item.grade for item in own], [item.conversation_id for item in own]
            )
    return ceilings


def gold_curve(folder: RunFolder, round_number: int) -> dict[int, dict[str, float]]:
    """Update -> gold helpfulness, reward and KL of the answers that PPO wrote down on its way."""
    file = folder.stage("ppo", round_number) / "heldout_samples.jsonl"
    taken: dict[int, list[Snapshot]] = {}
    for item in read_jsonl(file, Snapshot)[0] if file.is_file() else []:
        taken.setdefault(item.update, []).append(item)
    return {
        update: {
            "gold_helpfulness": sum(judge(i.prompt.messages, i.answer).helpfulness for i in items) / len(items),
            "heldout_reward": sum(i.score for i in items) / len(items),
            "heldout_kl_nats": sum(i.kl_nats for i in items) / len(items),
        }
        for update, items in taken.items()
    }


if __name__ == "__main__":
    run(main, __doc__, "stages.evaluate")
