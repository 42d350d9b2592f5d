"""Evaluation of reward models without training: any folders, any comparisons, each model by its own tokenizer."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from stage_fixtures import own_data, reduced_recipe, write_lines
from tiny import add_reward_model, load_tiny, save_tiny_model, tiny_tokenizer
from transformers import LlamaConfig, LlamaForSequenceClassification

from alignment.data.records import GRADES, Comparison, Message, SafetyLabel
from alignment.errors import UserError
from alignment.models.backbone import Backbone
from alignment.report.run_report_schema import RewardModelBlock
from alignment.reward.comparison_sets import ComparisonSet, Reader, score_models
from alignment.reward.encoded_pairs import EncodedPair, encode_pairs
from alignment.reward.pair_scoring import calibrate, evaluate_reward_model, pair_scores, score_pairs
from alignment.run.run_folder import RunFolder
from alignment.run.stage_records import changed_settings
from alignment.settings.recipe import Recipe
from stages.reward import train_reward_models
from stages.reward.evaluate_only import evaluate_only, short_names, tables
from stages.sft import finetune

WORDS = ("the sea", "why is it grey", "no", "the cat sat", "is it", "tell me of the sun")
BINS = ("preferred_safe_other_unsafe", "both_safe", "both_unsafe")


def comparisons(count: int, **changes: Any) -> list[Comparison]:
    """Pairs of short answers, two judgments of each, with grades and safety labels."""
    return [
        Comparison(
            **{
                "id": f"c{number}-{judgment}",
                "prompt": (Message(role="user", content=f"what {number}"),),
                "chosen": (Message(role="assistant", content=f"{WORDS[number % 6]} {number % 3}"),),
                "rejected": (Message(role="assistant", content=f"{WORDS[(number + 1) % 6]}"),),
                "dimension": "safety",
                "grade": GRADES[number % 4],
                "safety": SafetyLabel(bin=BINS[number % 3]),
                "conversation_id": f"d{number}",
                **changes,
            }
        )
        for number in range(count)
        for judgment in range(2)
    ]


def test_it_says_after_each_batch_how_many_answers_are_scored(backbone: Backbone) -> None:
    items = comparisons(2)
    own = ComparisonSet(
        "own",
        "a file",
        items,
        {},
        encode_pairs(items, backbone.encoder, margin="none", max_length_tokens=64, skip_too_long=False)[0],
    )
    model = add_reward_model(backbone, "helpfulness")
    reader = Reader(backbone.encoder, 64, lambda name, folder: model)
    said: list[tuple[int, int]] = []
    score_models(
        reader,
        {"one": Path("one"), "two": Path("two")},
        [own],
        batch_size=3,
        skip_too_long=False,
        on_answers=lambda done, total: said.append((done, total)),
    )
    assert {total for _, total in said} == {2 * 2 * len(items)}
    done = [number for number, _ in said]
    assert done == sorted(done) and done[-1] == 16
    first, second = {number for number in done if number <= 8}, {number for number in done if number > 8}
    assert len(first) > 1 and second == {8 + number for number in first}, "from where the first model ended"


def save_comparisons(file: Path, items: list[Comparison]) -> Path:
    return write_lines(file, [item.model_dump(mode="json", exclude_none=True) for item in items])


def save_classifier(folder: Path, *, context_tokens: int = 96) -> Path:
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.3,
        max_position_embeddings=context_tokens,
    )
    LlamaForSequenceClassification(config).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


@pytest.fixture
def world(tmp_path: Path, tiny_folder: Callable[[str], Path]) -> dict[str, Path]:
    """Two models on one base, one on another, a classifier, and a file of comparisons."""
    paths = {name: tmp_path / "models" / name for name in ("helpfulness", "safety", "other", "classifier")}
    base = load_tiny(tiny_folder("llama"))
    for seed, name in enumerate(("helpfulness", "safety")):
        add_reward_model(base, name, seed=seed).save(paths[name], calibration={})
    add_reward_model(load_tiny(tiny_folder("qwen2")), "other", seed=5).save(paths["other"], calibration={})
    save_classifier(paths["classifier"])
    return {**paths, "pairs": save_comparisons(tmp_path / "pairs.jsonl", comparisons(12))}


def recipe_for(tmp_path: Path, models: list[Path] | None, data: list[Path] | None, *overrides: str) -> Recipe:
    settings = []
    if models is not None:
        settings.append(f"reward.evaluation.models=[{','.join(map(str, models))}]")
    if data is not None:
        rows = ",".join(f"{{data: {path}, dimension: safety}}" for path in data)
        settings.append(f"reward.evaluation.data=[{rows}]")
    files = {name: "unused.jsonl" for name in ("prompts", "heldout_prompts", "pretraining", "demonstrations")}
    return reduced_recipe(files, tmp_path / "run", *settings, *overrides)


def scored_by_hand(folder: Path, base: Path, items: list[Comparison]) -> list[tuple[float, float]]:
    """Scores of single dialogues by the saved model, loaded by itself."""
    from alignment.models.scorers.reward_model import RewardModel

    backbone = load_tiny(base)
    model = RewardModel.load(backbone, "alone", folder)
    return [
        tuple(  # type: ignore[misc]
            model.score([backbone.encoder.encode_answer(item.prompt, text)], batch_size=1).item()
            for text in (item.chosen_text, item.rejected_text)
        )
        for item in items
    ]


class TestScorePairs:
    def test_carry_scores_lengths_and_labels(self, backbone: Backbone) -> None:
        model = add_reward_model(backbone, "safety")
        items = comparisons(5)
        items[0] = items[0].model_copy(
            update={"safety": None, "grade": None, "prompt": (*items[1].prompt, *items[1].chosen, *items[1].prompt)}
        )
        pairs, kept, _ = encode_pairs(items, backbone.encoder, margin="none", max_length_tokens=96, skip_too_long=False)
        counted: list[int] = []
        scored = score_pairs(model, pairs, kept, 4, on_batch=counted.append)
        chosen, rejected = pair_scores(model, pairs, batch_size=4)
        assert [pair.chosen for pair in scored] == chosen.tolist()
        assert [pair.rejected for pair in scored] == rejected.tolist()
        assert [pair.chosen_tokens for pair in scored] == [len(pair.chosen_ids) for pair in pairs]
        assert (scored[0].grade, scored[0].turns, scored[0].chosen_safe) == (None, 2, None)
        assert (scored[1].grade, scored[1].turns) == (GRADES[0], 1)
        assert (scored[1].chosen_safe, scored[1].rejected_safe) == (True, False)
        assert scored[2].chosen_key == scored[3].chosen_key != scored[4].chosen_key
        assert sum(counted) == 12  # distinct answers: of five pairs, and of the pair with the longer prompt

    def test_the_stage_gets_its_old_keys_and_the_report_takes_the_new_ones(self, backbone: Backbone) -> None:
        model = add_reward_model(backbone, "safety")
        pairs, kept, _ = encode_pairs(
            comparisons(8), backbone.encoder, margin="none", max_length_tokens=96, skip_too_long=False
        )
        found = evaluate_reward_model(model, pairs, kept, seed=0, batch_size=4)
        assert {"accuracy", "trend_p_value", "length_correlation"} <= set(found)
        assert "calibration" not in found  # that of the stage's own, which stands beside these
        block = RewardModelBlock(**json.loads(json.dumps(found)), n_train=3, calibration={"std": 1.0})
        assert block.unsafe_detection is not None and block.unsafe_detection.base_rate is not None
        assert block.unsafe_detection.base_rate.n == 16  # answers, not judgments

    def test_a_broken_model_is_one_error(self, backbone: Backbone) -> None:
        model = add_reward_model(backbone, "safety")
        with torch.no_grad():
            next(model.head.parameters()).fill_(float("nan"))
        pairs, kept, _ = encode_pairs(
            comparisons(2), backbone.encoder, margin="none", max_length_tokens=96, skip_too_long=False
        )
        message = r"'safety' gives scores that are not finite \(nan to \d of \d answers\)"
        with pytest.raises(UserError, match=message):
            evaluate_reward_model(model, pairs, kept, seed=0, batch_size=4)


@pytest.mark.integration
class TestEvaluateOnly:
    def test_models_of_any_kind_without_a_run(
        self, world: dict[str, Path], tmp_path: Path, tiny_folder: Callable[[str], Path]
    ) -> None:
        folders = [world[name] for name in ("helpfulness", "safety", "other", "classifier")]
        found = evaluate_only(recipe_for(tmp_path, folders, [world["pairs"]]))
        assert list(found["figures"]) == ["helpfulness", "safety", "other", "classifier"]
        assert len(found["agreement"]) == 6
        items = comparisons(12)
        for name, base in (("helpfulness", "llama"), ("other", "qwen2")):
            scores = scored_by_hand(world[name], tiny_folder(base), items)
            expected = sum(chosen > rejected for chosen, rejected in scores) / len(scores)
            figure = found["figures"][name]["pairs"]["accuracy"]["all"]
            assert (figure["value"], figure["n"]) == (pytest.approx(expected), 24), name
        page = tmp_path / "run" / "reward-evaluation" / "reward_models.html"
        assert page.is_file() and "4 reward models on 1 set" in page.read_text(encoding="utf-8")
        stored = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
        assert stored["tables"] == json.loads(json.dumps(found["tables"]))
        assert stored["test_sets"]["pairs"]["n"] == 24

    def test_the_tables_go_to_the_terminal(self, world: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
        recipe = recipe_for(tmp_path, [world["safety"]], [world["pairs"]], f"reward.evaluation.to={tmp_path / 'out'}")
        found = evaluate_only(recipe)
        shown = capsys.readouterr().err
        assert "accuracy by grade" in shown and str(tmp_path / "out" / "reward_models.html") in shown.replace("\n", "")
        overall, by_grade = tables(found)
        assert (len(overall.columns), overall.row_count) == (2, 1)
        assert (len(by_grade.columns), by_grade.row_count) == (7, 1)

    def test_classifiers_alone_read_by_their_own_tokenizer(self, world: dict[str, Path], tmp_path: Path) -> None:
        found = evaluate_only(recipe_for(tmp_path, [world["classifier"]], [world["pairs"]]))
        assert found["figures"]["classifier"]["pairs"]["accuracy"]["all"]["n"] == 24
        assert found["agreement"] == []

    def test_pairs_that_one_model_cannot_read_are_an_error_or_left_out_for_all(
        self, world: dict[str, Path], tmp_path: Path
    ) -> None:
        short = save_classifier(tmp_path / "models" / "short", context_tokens=24)
        long = comparisons(1, id="long", chosen=(Message(role="assistant", content="the sea is grey " * 2),))[:1]
        file = save_comparisons(tmp_path / "mixed.jsonl", [*comparisons(3), *long])
        models = [world["safety"], short]
        with pytest.raises(UserError, match=r"1 comparisons of mixed, the first long, .*data\.too_long=skip"):
            evaluate_only(recipe_for(tmp_path, models, [file]))
        found = evaluate_only(recipe_for(tmp_path, models, [file], "data.too_long=skip"))
        assert found["test_sets"]["mixed"]["left_out"]["unreadable for a model"] == 1
        assert [found["figures"][name]["mixed"]["accuracy"]["all"]["n"] for name in ("safety", "short")] == [6, 6]

    def test_two_files_of_one_name_are_told_apart_and_a_model_named_twice_is_refused(
        self, world: dict[str, Path], tmp_path: Path
    ) -> None:
        with pytest.raises(UserError, match="two sets would have the name"):
            evaluate_only(recipe_for(tmp_path, [world["safety"]], [world["pairs"], world["pairs"]]))
        with pytest.raises(UserError, match="is named twice"):
            evaluate_only(recipe_for(tmp_path, [world["safety"], world["safety"]], [world["pairs"]]))
        assert short_names([Path("/a/x/reward/safety"), Path("/a/y/reward/safety")]) == [
            "x/reward/safety",
            "y/reward/safety",
        ]

    def test_what_is_no_model_or_not_there_is_one_error(self, world: dict[str, Path], tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(UserError, match="not a reward model; expected"):
            evaluate_only(recipe_for(tmp_path, [tmp_path / "empty"], [world["pairs"]]))
        with pytest.raises(UserError, match="there is no such folder"):
            evaluate_only(recipe_for(tmp_path, [tmp_path / "nowhere"], [world["pairs"]]))
        with pytest.raises(UserError, match=r"python -m stages\.reward"):
            evaluate_only(recipe_for(tmp_path, None, [world["pairs"]]))
        with pytest.raises(UserError, match=r"no comparisons to evaluate on.*reward\.evaluation\.data="):
            evaluate_only(recipe_for(tmp_path, [world["safety"]], None))

    def test_a_run_is_evaluated_on_its_held_out_comparisons_and_not_changed(self, tmp_path: Path) -> None:
        """A run as the stages leave it, with comparisons of its own: models, data and encoder are the run's."""
        files = own_data(tmp_path / "data")
        base = save_tiny_model(tmp_path / "base")
        settings = [
            f"model.name_or_path={base}",
            f"reward.helpfulness.data={files['pairs']}",
            f"reward.safety.data={files['pairs']}",
            "reward.heldout_share=0.3",
        ]
        recipe = reduced_recipe({**files, "pretraining": "unused"}, tmp_path / "run", *settings)
        finetune.run(recipe)
        trained = train_reward_models.run(recipe)
        folder = RunFolder(recipe.run_dir)
        found = evaluate_only(recipe)
        assert {name: list(sets) for name, sets in found["figures"].items()} == {
            "helpfulness": ["helpfulness", "safety"],
            "safety": ["helpfulness", "safety"],
        }
        for name in ("helpfulness", "safety"):
            assert found["figures"][name][name]["accuracy"] == trained["models"][name]["accuracy"]
            assert found["figures"][name][name]["length"] == trained["models"][name]["length"]

        def with_setting(setting: str) -> Recipe:
            return reduced_recipe({**files, "pretraining": "unused"}, tmp_path / "run", *settings, setting)

        changed = with_setting("reward.evaluation.to=elsewhere")
        assert changed_settings(folder.stage("reward", 1), "reward", changed) == {}
        assert folder.changed_inputs("reward", 1) == []
        # Held out is what the trained split left over: another split could hold out what was trained on.
        for setting in (
            "seed=5",
            "reward.heldout_share=0.4",
            f"reward.safety.data={files['prompts']}",
            "reward.safety.format=tandem",
        ):
            with pytest.raises(UserError, match=rf"other settings \({setting.partition('=')[0]}=.* is not known"):
                evaluate_only(with_setting(setting))
        for setting in ("reward.safety.learning_rate=0.5", "data.on_error=skip"):  # it was made without an error
            assert evaluate_only(with_setting(setting))["figures"] == found["figures"]


class ScoresByAnswer:
    """In place of a reward model: the score of an answer by its first token."""

    offset = 0.0

    def __init__(self, scores: dict[int, float]) -> None:
        self.scores = scores

    def score(self, dialogues: Sequence[Any], *, batch_size: int) -> torch.Tensor:
        return torch.tensor([self.scores[item.answer_ids[0]] for item in dialogues])


def test_the_gate_is_calibrated_against_the_labels_that_count() -> None:
    """Flagged is below -1.735. Of six labelled answers four are flagged, two of them unsafe; three are unsafe."""
    scores = {0: 2.0, 1: -3.0, 2: -2.0, 3: 0.0, 4: -1.9, 5: -1.8, 6: -5.0, 7: -5.0}
    labels = [(True, False, True), (False, False, True), (True, True, True), (True, False, False)]
    pairs = [
        EncodedPair([9], [2 * number], [2 * number + 1], 0.0, chosen_safe, rejected_safe, labelled)
        for number, (chosen_safe, rejected_safe, labelled) in enumerate(labels)
    ]
    model: Any = ScoresByAnswer(scores)
    assert calibrate(model, pairs, "safety", batch_size=2) == {
        "n_answers": 8,
        "std": pytest.approx(statistics.pstdev(scores.values())),
        "gate_flagged": 4,
        "gate_precision": pytest.approx(2 / 4),
        "gate_recall": pytest.approx(2 / 3),
    }
    assert model.offset == 0.0
    # None is flagged, none is unsafe: both shares are 0, not an error.
    model.scores = dict.fromkeys(scores, 1.0)
    assert calibrate(model, pairs[2:3], "safety", batch_size=2) == {
        "n_answers": 2,
        "std": 0.0,
        "gate_flagged": 0,
        "gate_precision": 0.0,
        "gate_recall": 0.0,
    }
