"""What the recipe says reaches the place that uses it: functions are proved elsewhere, here it is their wiring.

A stage runs once with settings that are not the defaults, and what is done with them is noted where it is done.
"""

from __future__ import annotations

import json
import math
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from stage_fixtures import REDUCED, own_model, reduced_recipe, write_lines
from tiny import encoded_prompts, state_of, unchanged
from torch import Tensor

from alignment.data.encoded_dialogues import EncodedPrompt
from alignment.data.jsonl_and_raw_rows import read_jsonl
from alignment.data.records import Comparison, Prompt
from alignment.errors import UserError
from alignment.files import read_json
from alignment.models import sft_trainer
from alignment.models.backbone import Backbone, Role
from alignment.models.scorers.reward_model import RewardModel
from alignment.reward import reward_training
from alignment.reward.pair_scoring import pair_scores
from alignment.rl import ppo as ppo_module
from alignment.rl.ppo import PPO
from alignment.rl.rejection import Winner
from alignment.rl.rollout import Episodes, Rollout
from alignment.run.run_folder import RunFolder
from alignment.run.stage_records import StageRun
from alignment.settings.read_recipe import load_recipe
from alignment.settings.recipe import Recipe
from alignment.settings.sections import AnnotateSection, SamplingSection
from alignment.workflow.prompts_and_policies import Policy, load_backbone
from alignment.workflow.reward_data import data_of_models
from stages.annotate import collect
from stages.annotate.people_pairs import sample_pairs
from stages.annotate.variant_answers import answers_of_both
from stages.ppo import rejection_sampling, train_policy, training_watch
from stages.ppo.round_inputs import Round, load_round
from stages.reward import train_reward_models
from stages.reward.train_reward_models import encode
from stages.sft import finetune

Calls = list[tuple[tuple[Any, ...], dict[str, Any], Any]]
"""Arguments by place, arguments by name, and what was returned, of each call."""


@contextmanager
def noting(*places: tuple[Any, str]) -> Iterator[list[Calls]]:
    """Note the calls of functions, each named by its module and its name there, while the block runs."""
    with pytest.MonkeyPatch.context() as patch:
        yield [_noted(patch, module, name) for module, name in places]


def _noted(patch: pytest.MonkeyPatch, module: Any, name: str) -> Calls:
    calls: Calls = []
    plain: Callable[..., Any] = getattr(module, name)

    def noted(*given: Any, **options: Any) -> Any:
        found = plain(*given, **options)
        calls.append((given, options, found))
        return found

    patch.setattr(module, name, noted)
    return calls


# -- SFT --------------------------------------------------------------------------------------------------------------


def groups_of(calls: Calls) -> list[tuple[float, float]]:
    """Peak rate and weight decay of every optimiser that was made."""
    return [(group["initial_lr"], group["weight_decay"]) for _, _, made in calls for group in made[0].param_groups]


def test_sft_trains_at_its_own_rate_and_weight_decay(files: dict[str, str], sft_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(sft_run, tmp_path / "run"))
    recipe = reduced_recipe(files, run, "overwrite=true", "sft.learning_rate=3e-3", "sft.weight_decay=0.23")
    with noting((sft_trainer, "optimizer_and_schedule")) as [made]:
        finetune.run(recipe)
    assert groups_of(made) == [(3e-3, 0.23)]


def test_sft_leaves_a_label_unread_where_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = [{"role": "user", "content": "why"}, {"role": "assistant", "content": "the sea"}]
    file = write_lines(tmp_path / "demonstrations.jsonl", [{"messages": turns, "label": "good"}])
    settings = [
        f"model.name_or_path={own_model(tmp_path / 'model')}",
        f"sft.data={file}",
        f"run_dir={tmp_path / 'run'}",
    ]
    with pytest.raises(UserError, match=r"data\.unused=\[label\]"):
        finetune.run(load_recipe(None, settings))

    def load_base(*_: Any, **__: Any) -> NoReturn:
        raise KeyboardInterrupt  # what was read has been taken

    monkeypatch.setattr(finetune, "load_base", load_base)
    with pytest.raises(KeyboardInterrupt):
        finetune.run(load_recipe(None, [*settings, "data.unused=[label]"]))


# -- comparisons ------------------------------------------------------------------------------------------------------


def test_one_variant_answers_cold_and_the_other_hot(backbone: Backbone) -> None:
    """At a temperature near 0 the same answers come again, at a high one others."""
    policy = Policy("ppo-1", Role(backbone, None), "run/round-1/ppo")
    settings = AnnotateSection(temperatures=(1e-4, 3.0), max_new_tokens=5, batch_size_prompts=4)
    pairs = [answers_of_both(policy, encoded_prompts(backbone, 6), settings) for _ in range(2)]
    (cold, hot), (cold_again, hot_again) = [[[item.text for item in side] for side in pair] for pair in pairs]
    assert cold == cold_again
    assert hot != hot_again and hot != cold
    assert [{item.source.temperature for item in side} for side in pairs[0]] == [{1e-4}, {3.0}]
    assert [{item.source.variant for item in side} for side in pairs[0]] == [{"ppo-1@0.0001"}, {"ppo-1@3.0"}]
    assert {item.source.checkpoint for side in pairs[0] for item in side} == {"ppo"}


def test_every_comparison_is_between_the_two_temperatures(rewarded_run: Path) -> None:
    folder = rewarded_run / "round-1" / "annotate"
    for name in ("comparisons", "heldout_comparisons"):
        found = read_jsonl(folder / f"{name}.jsonl", Comparison)[0]
        assert found
        for item in found:
            assert item.chosen_source and item.rejected_source
            assert {item.chosen_source.temperature, item.rejected_source.temperature} == {1.0, 1.2}


# -- reward models ----------------------------------------------------------------------------------------------------

STRENGTHS = {"significantly_better": 5.0, "better": 4.0, "slightly_better": 2.5, "negligibly_better": 0.5}
MARGINS = {"significantly_better": 0.4, "better": 0.3, "slightly_better": 0.2, "negligibly_better": 0.1}


def as_override(table: dict[str, float]) -> str:
    return "{" + ", ".join(f"{grade}: {number}" for grade, number in table.items()) + "}"


def test_a_reward_model_learns_by_the_loss_strengths_and_smoothing_of_the_recipe(
    files: dict[str, str], rewarded_run: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(rewarded_run, tmp_path / "run"))
    recipe = reduced_recipe(
        files,
        run,
        "overwrite=true",
        "reward.models=[helpfulness]",
        "reward.helpfulness.loss=scaled",
        f"reward.helpfulness.strengths={as_override(STRENGTHS)}",
        f"reward.helpfulness.margin={as_override(MARGINS)}",
        "reward.helpfulness.label_smoothing=0.2",
    )
    with noting((reward_training, "reward_loss")) as [losses]:
        train_reward_models.run(recipe)
    # Each pair has the strength and the margin of its grade.
    comparisons = read_jsonl(run / "round-1" / "annotate" / "comparisons.jsonl", Comparison)[0]
    grades = [item.grade for item in comparisons if item.dimension == "helpfulness" and item.grade]
    used = [
        (round(strength, 4), round(margin, 4))
        for (_, _, labels), _, _ in losses
        for strength, margin in zip(labels["strength"].tolist(), labels["margin"].tolist(), strict=True)
    ]
    assert len(set(grades)) > 1
    assert Counter(used) == Counter((STRENGTHS[grade], MARGINS[grade]) for grade in grades)
    # Strength times the loss of the label, which is wrong once in five times.
    for (_, opinions, labels), options, loss in losses:
        assert options.get("label_smoothing") == 0.2, "which scores of a fresh head hardly show"
        total = 0.0
        for (chosen, rejected), strength, margin in zip(
            opinions[:, :, 0].tolist(), labels["strength"].tolist(), labels["margin"].tolist(), strict=True
        ):
            right, wrong = (math.log1p(math.exp(-gap + margin)) for gap in (chosen - rejected, rejected - chosen))
            total += strength * (0.8 * right + 0.2 * wrong)
        assert loss.item() == pytest.approx(total / options["n_pairs"], rel=1e-5)


def test_the_helpfulness_model_is_centred_on_what_it_was_trained_on(files: dict[str, str], rewarded_run: Path) -> None:
    recipe = reduced_recipe(files, rewarded_run)
    folder = RunFolder(recipe.run_dir)
    backbone = load_backbone(folder, recipe.model)
    data = encode(recipe, backbone, data_of_models(recipe, folder, 1)["helpfulness"], "helpfulness")[0]
    model = RewardModel.load(backbone, "helpfulness", folder.stage("reward", 1) / "helpfulness")
    trained, heldout = (
        torch.cat(pair_scores(model, pairs, batch_size=32)).mean().item() for pairs in (data.pairs, data.heldout_pairs)
    )
    assert trained == pytest.approx(0, abs=1e-5)
    assert abs(heldout) > 1e-4, "other answers have another mean"
    for name, block in read_json(rewarded_run / "round-1" / "reward" / "result.json")["models"].items():
        assert block["calibration"]["n_answers"] == 2 * block["n_train"], name


# -- rejection sampling -----------------------------------------------------------------------------------------------


@dataclass
class Rejection:
    """A finished rejection stage, and what it did on the way."""

    run: Path
    recipe: Recipe
    result: dict[str, Any]
    winners: list[Winner]
    ranked: dict[str, Tensor]
    """Scores of the reward models, prompts' tags and gated scores of all candidates."""
    picked: tuple[Any, ...]
    """Candidates, merit and scores that winners were picked from."""
    learned: list[str]
    """The dialogues that were fine-tuned on, as text."""
    groups: list[tuple[float, float]]


@pytest.fixture(scope="module")
def rejection(files: dict[str, str], rewarded_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Rejection:
    run = Path(shutil.copytree(rewarded_run, tmp_path_factory.mktemp("runs") / "rejection"))
    recipe = reduced_recipe(
        files,
        run,
        "ppo.method=rejection",
        "ppo.safety_threshold=0.999",
        "rejection.prompts=9",
        "rejection.samples_per_prompt=3",
        "rejection.pick=random",
        "rejection.learning_rate=4e-3",
    )
    places = [(rejection_sampling, name) for name in ("order_of_merit", "pick_winners", "train_sft")]
    with noting(*places, (sft_trainer, "optimizer_and_schedule")) as [merits, picks, trained, optimizers]:
        result = train_policy.run(recipe)
    [((helpfulness, safety, is_safety, _), _, (_, gated))] = merits
    [((_, tokenizer, dialogues, _), _, _)] = trained
    return Rejection(
        run,
        recipe,
        result,
        read_jsonl(run / "round-1" / "rejection" / "winners.jsonl", Winner)[0],
        {"helpfulness": helpfulness, "safety": safety, "is_safety": is_safety, "gated": gated},
        picks[0][0],
        [tokenizer.decode(dialogue.input_ids, skip_special_tokens=True) for dialogue in dialogues],
        groups_of(optimizers),
    )


def of_no_use(result: dict[str, Any]) -> int:
    """Candidates that did not compete."""
    return sum(result["left_out"][why] for why in ("candidates empty", "answers with a mark of the chat template"))


class TestRejectionSampling:
    def test_draws_as_many_candidates_a_prompt_as_asked_for(self, rejection: Rejection) -> None:
        counts = [item.candidates for item in rejection.winners]
        assert sum(counts) == 9 * 3 - of_no_use(rejection.result)
        assert max(counts) == 3

    def test_gates_at_the_threshold_of_ppo(self, rejection: Rejection) -> None:
        """At 0.999 no answer of an untrained model is safe enough: the safety model scores all of them."""
        ranked = rejection.ranked
        assert not ranked["is_safety"].all()
        assert ranked["safety"].sigmoid().max() < 0.999
        assert ranked["safety"].sigmoid().min() > 0.15, "at the default threshold none would be flagged"
        assert ranked["gated"].tolist() == ranked["safety"].tolist() != ranked["helpfulness"].tolist()

    def test_picks_at_random_where_asked_to(self, rejection: Rejection) -> None:
        candidates, merit, _ = rejection.picked
        rows: dict[str, list[int]] = {}
        for row, item in enumerate(candidates):
            rows.setdefault(item.prompt.id, []).append(row)
        chance = random.Random(rejection.recipe.seed)
        tossed = [candidates[chance.choice(own)].answer_ids for own in rows.values()]
        best = [candidates[max(own, key=lambda row: merit[row].item())].answer_ids for own in rows.values()]
        assert [item.answer_ids for item in rejection.winners] == tossed != best

    def test_fine_tunes_on_the_demonstrations_beside_the_winners(
        self, rejection: Rejection, files: dict[str, str]
    ) -> None:
        rows = [json.loads(line) for line in Path(files["demonstrations"]).read_text().splitlines()]
        shown = [turn["content"] for row in rows for turn in row["messages"]]
        assert len(rows) >= 16
        assert len(rejection.learned) == len(rejection.winners) + len(rows)
        assert all(any(text in dialogue for dialogue in rejection.learned) for text in shown)

    def test_fine_tunes_at_a_rate_of_its_own(self, rejection: Rejection) -> None:
        assert rejection.groups == [(4e-3, 0.1)]

    def test_and_with_the_weight_decay_of_sft(
        self, rejection: Rejection, files: dict[str, str], tmp_path: Path
    ) -> None:
        recipe = reduced_recipe(files, rejection.run, "sft.weight_decay=0.23")
        backbone = load_backbone(RunFolder(recipe.run_dir), recipe.model)
        stage = StageRun("round-1/rejection", tmp_path / "round-1" / "rejection")
        stage.folder.mkdir(parents=True)
        with noting((sft_trainer, "optimizer_and_schedule")) as [made]:
            rejection_sampling.finetune_on_winners(
                recipe, backbone, rejection.winners, [], stage, on_step=lambda *_: None
            )
        assert groups_of(made) == [(1e-3, 0.23)]


class TestSecondRound:
    """After a round whose newest policy is that of rejection sampling."""

    def test_candidates_are_its_answers_and_all_winners_of_the_round_before(
        self, rejection: Rejection, files: dict[str, str]
    ) -> None:
        recipe = reduced_recipe(files, rejection.run, "rejection.prompts=4")
        first = load_round(recipe, RunFolder(recipe.run_dir), 1)
        with noting((rejection_sampling, "answer_prompts"), (rejection_sampling, "pick_winners")) as [asked, picks]:
            winners, left_out = rejection_sampling.sample_winners(
                recipe, first.folder, first.backbone, first.models, first.prompts, 2, on_step=lambda *_: None
            )
        [((role, prompts, _), _, _)] = asked
        assert role.adapter == "rejection-1"
        assert len(prompts) == 4 * 2
        [((candidates, _, _), _, _)] = picks
        before = [(item.prompt.id, item.answer_ids) for item in candidates if item.round == 1]
        assert before == [(item.prompt.id, item.answer_ids) for item in rejection.winners]
        drawn = 4 * 2 - of_no_use({"left_out": left_out})
        assert sum(item.candidates for item in winners) == drawn + len(rejection.winners)

    def test_its_answers_are_compared(self, rejection: Rejection, tmp_path: Path) -> None:
        run = Path(shutil.copytree(rejection.run, tmp_path / "run"))
        collect.run(rejection.recipe.model_copy(update={"run_dir": str(run)}), 2)
        found = read_jsonl(run / "round-2" / "annotate" / "comparisons.jsonl", Comparison)[0]
        sources = [source for item in found for source in (item.chosen_source, item.rejected_source) if source]
        assert {source.variant for source in sources} == {"rejection-1@1.0", "rejection-1@1.2"}

    def test_people_compare_its_answers(self, rejection: Rejection, files: dict[str, str]) -> None:
        recipe = reduced_recipe(
            files,
            rejection.run,
            "annotate.helpfulness_pairs=4",
            "annotate.safety_pairs=0",
            "annotate.heldout_helpfulness_pairs=0",
            "annotate.heldout_safety_pairs=0",
        )
        prompts: list[Prompt] = read_jsonl(files["prompts"], Prompt)[0]
        folder = RunFolder(recipe.run_dir)
        items, _ = sample_pairs(
            recipe, folder, 2, "batch", {"train": prompts, "heldout": []}, {"helpfulness": "project"}
        )
        names = {answer.variant.name for item in items["project"] for answer in item.answers.values()}
        assert names == {"rejection-1@1.0", "rejection-1@1.2"}


# -- PPO --------------------------------------------------------------------------------------------------------------


@dataclass
class Updates:
    """What PPO did, update by update."""

    run: Path
    safety_prompts: list[int] = field(default_factory=list)
    steps: list[list[list[int]]] = field(default_factory=list)
    """Update -> rows of each optimiser step."""
    policy_moved: list[bool] = field(default_factory=list)
    value_moved: list[bool] = field(default_factory=list)
    weight_decays: list[list[float]] = field(default_factory=list)
    value_clips: set[float] = field(default_factory=set)
    betas: list[float] = field(default_factory=list)
    snapshot_sampling: list[SamplingSection] = field(default_factory=list)


@pytest.fixture(scope="module")
def updates(files: dict[str, str], rewarded_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Updates:
    run = Path(shutil.copytree(rewarded_run, tmp_path_factory.mktemp("runs") / "ppo"))
    recipe = reduced_recipe(
        files,
        run,
        "ppo.method=ppo",
        "ppo.updates=3",
        "ppo.epochs=2",
        "ppo.weight_decay=0.37",
        "ppo.value_clip_range=0.07",
        "ppo.warmup_value_updates=1",
        "ppo.safety_share=0.75",
        "ppo.kl_beta=0.04",
        "ppo.kl_control=adaptive",
        "ppo.kl_target_nats=100",
        "ppo.kl_horizon_episodes=8",
        "ppo.sampling.temperature=1.1",
        "evaluate.sampling.temperature=0.6",
    )
    noted = Updates(run)
    plain = {name: getattr(PPO, name) for name in ("sample", "update", "_minibatch_step")}

    def sample(trainer: PPO, prompts: Sequence[EncodedPrompt], update: int) -> Episodes:
        noted.safety_prompts.append(sum(item.dimension == "safety" for item in prompts))
        found: Episodes = plain["sample"](trainer, prompts, update)
        return found

    def step(trainer: PPO, rollout: Rollout, advantages: Any, rows: Tensor, **options: Any) -> dict[str, float]:
        noted.steps[-1].append(rows.tolist())
        found: dict[str, float] = plain["_minibatch_step"](trainer, rollout, advantages, rows, **options)
        return found

    def update(trainer: PPO, *given: Any, **options: Any) -> dict[str, float]:
        noted.steps.append([])
        roles = (trainer.policy_parameters, trainer.value_parameters)
        before = [state_of(parameters) for parameters in roles]
        found: dict[str, float] = plain["update"](trainer, *given, **options)
        moved = [not unchanged(parameters, old) for parameters, old in zip(roles, before, strict=True)]
        noted.policy_moved.append(moved[0])
        noted.value_moved.append(moved[1])
        noted.weight_decays.append([group["weight_decay"] for group in trainer.optimizer.param_groups])
        return found

    places = (ppo_module, "clipped_value_loss"), (ppo_module, "token_rewards"), (training_watch, "measure_policy")
    with noting(*places) as [losses, rewards, measured], pytest.MonkeyPatch.context() as patch:
        for name, changed in (("sample", sample), ("update", update), ("_minibatch_step", step)):
            patch.setattr(PPO, name, changed)
        train_policy.run(recipe)
    noted.value_clips = {options["clip_range"] for _, options, _ in losses}
    noted.betas = [options["beta"] for _, options, _ in rewards]
    noted.snapshot_sampling = [given[2] for given, _, _ in measured]
    return noted


class TestPPO:
    def test_goes_over_each_batch_as_often_as_asked_in_another_order_each_time(self, updates: Updates) -> None:
        """Batches of 8 in steps of 4, twice over, three times."""
        assert [len(steps) for steps in updates.steps] == [2 * 2] * 3
        passes = [steps[start : start + 2] for steps in updates.steps for start in (0, 2)]
        assert all(sorted(first + second) == list(range(8)) for first, second in passes)
        assert len({tuple(sorted(first)) for first, _ in passes}) > 3

    def test_leaves_the_policy_alone_while_the_value_warms_up(self, updates: Updates) -> None:
        assert updates.policy_moved == [False, True, True]
        assert updates.value_moved == [True, True, True]

    def test_holds_the_share_of_safety_prompts_in_every_batch(self, updates: Updates) -> None:
        assert updates.safety_prompts == [6, 6, 6]

    def test_decays_the_weights_of_policy_and_value_as_asked(self, updates: Updates) -> None:
        assert updates.weight_decays == [[0.37, 0.37]] * 3

    def test_keeps_values_as_near_as_asked(self, updates: Updates) -> None:
        assert updates.value_clips == {0.07}

    def test_pays_by_the_beta_that_the_controller_has_reached_and_logs_it(self, updates: Updates) -> None:
        """Far below its target the KL gets a fifth cheaper with every 8 episodes."""
        expected = [0.04, 0.04 * 0.8, 0.04 * 0.8 * 0.8]
        assert updates.betas == pytest.approx(expected)
        lines = (updates.run / "round-1" / "ppo" / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["objective/beta"] for line in lines] == pytest.approx(expected)

    def test_takes_its_snapshots_at_the_temperature_of_the_evaluation(self, updates: Updates) -> None:
        longest = REDUCED["ppo"]["sampling"]["max_new_tokens"]
        taken = [(sampling.temperature, sampling.max_new_tokens) for sampling in updates.snapshot_sampling]
        assert taken == [(0.6, longest)] * 2  # before the first update and after the second

    def test_draws_other_numbers_in_every_round(
        self, files: dict[str, str], rewarded_run: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        recipe = reduced_recipe(files, rewarded_run, "seed=5", "ppo.method=ppo")
        seeds: dict[str, list[int]] = {"order": [], "noise": []}

        class Made(Exception):
            """The trainer was asked for; more is not wanted."""

        def batches(*given: Any, seed: int, **options: Any) -> list[Any]:
            seeds["order"].append(seed)
            return []

        def trainer(*given: Any, seed: int, **options: Any) -> None:
            seeds["noise"].append(seed)
            raise Made

        trainer.policy_adapter = PPO.policy_adapter  # type: ignore[attr-defined]
        monkeypatch.setattr(train_policy, "prompt_batches", batches)
        monkeypatch.setattr(train_policy, "PPO", trainer)
        monkeypatch.setattr(Round, "selection", lambda _: [])
        monkeypatch.setattr(Round, "add_policy", lambda *_: None)
        first = load_round(reduced_recipe(files, rewarded_run, "ppo.method=ppo"), RunFolder(recipe.run_dir), 1)
        for number in (1, 2, 3):
            with pytest.raises(Made):
                train_policy.ppo(replace(first, recipe=recipe, number=number))
        assert seeds["noise"] == seeds["order"]
        assert seeds["noise"][0] == 5, "the recipe's own"
        assert len(set(seeds["noise"])) == 3
        # Rounds of neighbouring seeds do not meet.
        assert min(abs(one - other) for one in seeds["noise"] for other in seeds["noise"] if one != other) > 1000
