"""Every stage on models that are not the toy: Llama- and Qwen-shaped, own tokenizers and templates, 4 bits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from any_model import CASES, Case, recipe_for
from safetensors.torch import load_file
from stage_fixtures import outcome

from alignment.data.records import Message
from alignment.files import read_json
from alignment.models.sampling.streaming import stream_answer
from alignment.report.run_report_schema import validate_report
from alignment.run.run_folder import RunFolder
from alignment.settings.recipe import Recipe
from alignment.workflow.prompts_and_policies import load_backbone, load_policy
from stages.annotate import collect as annotate
from stages.evaluate import judge_policies as evaluate
from stages.pipeline import run_stages
from stages.ppo import train_policy as ppo
from stages.reward import train_reward_models
from stages.sft import finetune

pytestmark = pytest.mark.integration

IN_EVERY_TEST_RUN = ("llama without a template", "qwen3 in nf4")
PARAMETERS = [
    pytest.param(name, id=name.replace(" ", "-"), marks=() if name in IN_EVERY_TEST_RUN else pytest.mark.slow)
    for name in CASES
]


@pytest.fixture(scope="module", params=PARAMETERS)
def run_of_stages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, Recipe]:
    """A run in which every stage has been run, one at a time."""
    case = CASES[request.param]
    recipe = recipe_for(case, tmp_path_factory.mktemp("any"))
    for stage in (finetune, annotate, train_reward_models, ppo, evaluate):
        stage.run(recipe)
    return case, recipe


def test_every_stage_runs_and_the_report_is_valid(run_of_stages: tuple[Case, Recipe]) -> None:
    _, recipe = run_of_stages
    report = read_json(Path(recipe.run_dir) / "report.json")
    validate_report(report)
    assert set(report["policies"]) == {"base", "sft", "rejection", "ppo"}
    assert report["judge"] is None
    assert {entry["judge"] for entry in report["win_rates"]} == {"reward models"}
    assert all(block["helpfulness"] is None for block in report["policies"].values())
    accuracy = report["reward_models"]["safety"]["accuracy"]
    assert accuracy["all"]["n"] > 0
    assert accuracy["better"] is not None and accuracy["slightly_better"] is None


def test_sft_leaves_a_standard_model_folder(run_of_stages: tuple[Case, Recipe]) -> None:
    case, recipe = run_of_stages
    folder = Path(recipe.run_dir) / "sft"
    config = json.loads((folder / "config.json").read_text())
    assert case.family in config["model_type"]
    assert "quantization_config" not in config
    base = load_file(str(Path(recipe.model.name_or_path) / "model.safetensors"))
    tuned = load_file(str(folder / "model.safetensors"))
    projections = [key for key in base if key.endswith("q_proj.weight")]
    assert projections
    assert all(not base[key].equal(tuned[key]) for key in projections)


def test_chatting_streams_one_answer(run_of_stages: tuple[Case, Recipe]) -> None:
    _, recipe = run_of_stages
    folder = RunFolder(recipe.run_dir)
    backbone = load_backbone(folder, recipe.model)
    policy = load_policy(folder, backbone, "newest")
    assert policy.name == "ppo-1"
    sampling = recipe.evaluate.sampling
    *_, last = stream_answer(*policy.role, [Message(role="user", content="ask")], sampling, seed=0)
    assert 1 <= last.n_tokens <= sampling.max_new_tokens
    assert last.finish_reason in ("stop", "length")
    assert not any(marker in last.text for marker in ("<|end|>", "<|assistant|>"))


def test_a_model_without_a_template_speaks_llama_2(tmp_path: Path) -> None:
    recipe = recipe_for(CASES["llama without a template"], tmp_path)
    finetune.run(recipe)
    backbone = load_backbone(RunFolder(recipe.run_dir), recipe.model)
    ids = backbone.encoder.encode_prompt([Message(role="user", content="ask")])
    assert "[INST] ask [/INST]" in backbone.tokenizer.decode(ids)


def test_training_every_weight(tmp_path: Path) -> None:
    recipe = recipe_for(CASES["llama"], tmp_path, "sft.method=full")
    finetune.run(recipe)
    report = evaluate.run(recipe)
    assert set(report["policies"]) == {"base", "sft"}
    base = load_file(str(tmp_path / "model" / "model.safetensors"))
    tuned = load_file(str(tmp_path / "run" / "sft" / "model.safetensors"))
    assert base.keys() == tuned.keys()
    assert all(not base[key].equal(tuned[key]) for key in base if key.endswith("_proj.weight"))
    assert not (tmp_path / "run" / "sft" / "adapter").exists()


def test_training_every_weight_of_a_4_bit_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = recipe_for(CASES["qwen3 in nf4"], tmp_path, "sft.method=full")
    code, shown = outcome(lambda: finetune.run(recipe), capsys)
    assert code == 2
    assert "sft.method=lora" in shown
    assert not (tmp_path / "run" / "sft").exists()


@pytest.mark.parametrize("models", ["[helpfulness,safety]", "[safety]"])
@pytest.mark.parametrize("both", [True, False])
def test_the_pipeline_annotates_unless_every_reward_model_has_data(
    both: bool, models: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    for module in (finetune, annotate, train_reward_models, ppo, evaluate):
        name = module.__name__.split(".")[1]
        monkeypatch.setattr(module, "run", lambda *unused, name=name, **options: called.append(name))
    monkeypatch.setattr(run_stages, "read_json", lambda file: {})
    monkeypatch.setattr(run_stages, "show", lambda report, folder: None)
    own = [f"reward.helpfulness.data={tmp_path}"] if both else []
    run_stages.run(recipe_for(CASES["llama"], tmp_path, f"reward.models={models}", *own))
    needed = models == "[helpfulness,safety]" and not both
    assert called == ["sft", *(["annotate"] if needed else []), "reward", "ppo", "ppo", "evaluate"]


def test_gradient_checkpointing_trains_the_same_sft_model(tmp_path: Path) -> None:
    plain = recipe_for(CASES["llama"], tmp_path)
    finetune.run(plain)
    shutil.move(tmp_path / "run", tmp_path / "plain")
    finetune.run(recipe_for(CASES["llama"], tmp_path, "sft.trainer.gradient_checkpointing=true"))
    first = load_file(str(tmp_path / "plain" / "sft" / "model.safetensors"))
    second = load_file(str(tmp_path / "run" / "sft" / "model.safetensors"))
    assert all(first[key].allclose(second[key], atol=1e-6) for key in first)


def test_gradient_checkpointing_of_a_reward_model_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_for(CASES["llama"], tmp_path, "reward.trainer.gradient_checkpointing=true")
    finetune.run(recipe)
    annotate.run(recipe)
    code, shown = outcome(lambda: train_reward_models.run(recipe), capsys)
    assert code == 2
    assert "reward.trainer: gradient checkpointing is not supported" in shown
