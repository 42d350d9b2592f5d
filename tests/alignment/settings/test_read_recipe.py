"""Recipes: what is wrong is said all at once, with the nearest valid name; every shipped recipe is valid."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

import child_process
import pytest
import yaml

from alignment.errors import UserError
from alignment.settings.read_recipe import load_recipe, recipe_keys, save_recipe
from alignment.settings.recipe import Recipe
from annotation_ui.app_settings import load_settings
from stages.door.command_line import MISSING, recipe_from

ROOT = Path(__file__).resolve().parents[3]
APP_SETTINGS = ROOT / "configs" / "annotation.yaml"
RECIPES = sorted(set((ROOT / "configs").rglob("*.yaml")) - {APP_SETTINGS})
REQUIRED = {
    "llama2-7b-qlora.yaml": [
        "data.prompts",
        "data.heldout_prompts",
        "sft.data",
        "reward.helpfulness.data",
        "reward.safety.data",
    ]
}
"""Settings that a recipe leaves to the user."""


def refusal(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_recipe(None, overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("typo", "nearest"),
    [
        ("ppo.kl_betta=0.1", "ppo.kl_beta"),
        ("sft.learnig_rate=1", "sft.learning_rate"),
        ("reward.safety.safety_wieght=1", "reward.safety.safety_weight"),
        ("ppo.sampling.temprature=1", "ppo.sampling.temperature"),
        ("reward.evaluation.modells=[a]", "reward.evaluation.models"),
    ],
)
def test_a_typo_names_the_nearest_key(typo: str, nearest: str) -> None:
    message = refusal(typo)
    assert f"did you mean {nearest}?" in message
    assert typo.partition("=")[0].split(".")[-1].split("=")[0] in message


def test_a_misspelt_section_names_the_nearest_one() -> None:
    assert "modell: no such setting; did you mean model?" in refusal("modell.dtype=auto")


def test_a_typo_within_a_list_of_sections_names_the_nearest_key() -> None:
    message = refusal("reward.evaluation.data=[{data: a.jsonl, dimenson: safety}]")
    assert (
        "reward.evaluation.data.0.dimenson: no such setting; did you mean reward.evaluation.data.0.dimension?"
        in message
    )


def test_a_key_unlike_any_other_lists_those_of_its_section() -> None:
    assert "known: r, alpha, dropout, target_modules" in refusal("model.lora.xyzzy=1")


def test_all_mistakes_come_at_once() -> None:
    message = refusal("ppo.kl_betta=0.1", "sft.epochs=-1", "seed=x", "evaluate.judge=human")
    assert "4 wrong settings" in message
    for key in ("ppo.kl_betta", "sft.epochs", "seed", "evaluate.judge"):
        assert sum(line.strip().startswith(f"{key}:") for line in message.splitlines()) == 1


@pytest.mark.parametrize(
    "override",
    [
        "seed=-1",
        "rounds=0",
        "ppo.gamma=1.5",
        "ppo.kl_beta=-0.1",
        "ppo.safety_threshold=0",
        "ppo.safety_threshold=1",
        "reward.heldout_share=1",
        "model.lora.r=0",
        "model.quantization=int8",
        "annotate.temperatures=[1.0]",
        "evaluate.sampling.temperature=0",
        "ppo.minibatch_size_episodes=48",
        "ppo.micro_batch_size_episodes=5",
        "sft.learning_rate=.inf",
        "ppo.kl_beta=.nan",
        "seed=true",
        "rounds=false",
        "ppo.gamma=true",
        "ppo.kl_budget_nats=true",
        "reward.models=[]",
        "run_dir=''",
    ],
)
def test_values_out_of_range_are_refused(override: str) -> None:
    section = override.partition("=")[0].split(".")[0]
    assert section in refusal(override)


def test_true_and_false_are_no_numbers_and_stay_what_they_are_elsewhere() -> None:
    assert "seed: a number is wanted here, not true or false (given on the command line: True)" in refusal("seed=true")
    assert load_recipe(None, ["overwrite=true", "model.sampling_copy=false"]).overwrite


def test_a_run_in_the_home_folder_is_there_and_not_in_a_folder_called_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert load_recipe(None, ["run_dir=~/x"]).run_dir == "/home/ada/x"


def test_batch_sizes_that_do_not_divide_name_both_numbers() -> None:
    message = refusal("ppo.batch_size_episodes=100", "ppo.minibatch_size_episodes=32")
    assert "minibatch_size_episodes (32) must divide batch_size_episodes (100)" in message


def test_overrides_win_over_the_recipe_and_later_ones_over_earlier() -> None:
    recipe = load_recipe(None, ["seed=3", "ppo.kl_beta=0.5", "ppo.kl_beta=0.25", "reward.models=[safety]"])
    assert (recipe.seed, recipe.ppo.kl_beta, recipe.reward.models) == (3, 0.25, ["safety"])
    assert recipe.ppo.updates == load_recipe().ppo.updates


def test_an_override_without_a_value_is_refused() -> None:
    assert "ppo.updates" in refusal("ppo.updates")
    assert "key.sub=value" in refusal("ppo.updates")


def test_a_recipe_that_is_not_there_or_not_yaml(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such recipe"):
        load_recipe(str(tmp_path / "none.yaml"))
    broken = tmp_path / "broken.yaml"
    broken.write_text("model: [1, 2\nseed: 0\n")
    with pytest.raises(UserError, match=r"broken\.yaml"):
        load_recipe(str(broken))


def test_a_saved_recipe_reads_back_as_the_same(tmp_path: Path) -> None:
    recipe = load_recipe(None, ["seed=5", "annotate.temperatures=[0.7,1.3]"])
    save_recipe(recipe, tmp_path / "config.yaml")
    assert load_recipe(str(tmp_path / "config.yaml")).model_dump() == recipe.model_dump()


def filled(recipe: Path) -> list[str]:
    return [f"{key}=mine.jsonl" for key in REQUIRED.get(recipe.name, [])]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_every_shipped_recipe_is_valid(recipe: Path) -> None:
    loaded = recipe_from(Namespace(config=str(recipe), overrides=filled(recipe)))
    assert isinstance(loaded, Recipe)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_every_shipped_recipe_opens_with_how_to_use_it(recipe: Path) -> None:
    header = recipe.read_text(encoding="utf-8").partition("\n\nrun_dir:")[0]
    assert all(line.startswith("#") for line in header.splitlines() if line)
    for wanted in ("# Launch:", "# Override:", "python -m stages."):
        assert wanted in header, wanted
    if recipe.name != "toy.yaml":
        assert f"--config configs/{recipe.name}" in header
        assert "# Hardware:" in header


def test_shipped_recipes_set_no_key_twice() -> None:
    class Strict(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
            keys = [self.construct_object(key) for key, _ in node.value]
            assert len(keys) == len(set(keys)), keys
            return super().construct_mapping(node, deep)

    for recipe in RECIPES:
        yaml.load(recipe.read_text(encoding="utf-8"), Strict)


def test_what_only_the_user_can_give_is_asked_for_at_once() -> None:
    recipe = "configs/llama2-7b-qlora.yaml"
    with pytest.raises(UserError) as caught:
        recipe_from(Namespace(config=recipe, overrides=["sft.data=mine.jsonl"]))
    message = str(caught.value)
    assert recipe in message
    assert MISSING not in message
    assert "sft.data=" not in message
    for key in REQUIRED["llama2-7b-qlora.yaml"]:
        assert key == "sft.data" or f"{key}=" in message


def test_the_seven_billion_recipe_has_the_papers_numbers() -> None:
    path = ROOT / "configs" / "llama2-7b-qlora.yaml"
    recipe = load_recipe(str(path), filled(path))
    assert recipe.model.name_or_path == "meta-llama/Llama-2-7b-hf"
    assert recipe.model.quantization == "nf4"
    sft, ppo, helpful = recipe.sft, recipe.ppo, recipe.reward.helpfulness
    assert (sft.learning_rate, sft.weight_decay, sft.batch_size_dialogues, sft.epochs) == (2e-5, 0.1, 64, 2)
    assert (sft.max_length_tokens, sft.packing) == (4096, True)
    assert (helpful.margin, helpful.epochs, helpful.learning_rate, helpful.batch_size_pairs) == ("small", 1, 1e-5, 512)
    assert (ppo.learning_rate, ppo.batch_size_episodes, ppo.minibatch_size_episodes) == (1e-6, 512, 64)
    assert (ppo.clip_range, ppo.kl_beta, ppo.safety_threshold, ppo.max_grad_norm) == (0.2, 0.01, 0.15, 1.0)
    assert 200 <= ppo.updates <= 400


def test_the_smoke_recipe_differs_from_the_toy_only_in_size() -> None:
    toy, smoke = load_recipe(), load_recipe(str(ROOT / "configs" / "smoke.yaml"))
    assert smoke.run_dir == "runs/smoke"
    assert smoke.data == toy.data
    assert (smoke.annotate.source, smoke.evaluate.judge) == ("simulated", "gold")
    assert smoke.base.steps <= 60
    assert smoke.ppo.updates <= 3


def leaves(values: dict[str, object], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for key, value in values.items():
        nested = isinstance(value, dict) and value
        found |= leaves(value, f"{prefix}{key}.") if nested else {prefix + key}  # type: ignore[arg-type]
    return found


def test_every_setting_of_a_recipe_is_among_the_keys_and_is_described() -> None:
    assert leaves(load_recipe().model_dump()) <= {key for key, *_ in recipe_keys()}
    assert all(description for *_, description in recipe_keys())


def test_a_wrong_setting_on_the_command_line_ends_with_code_2_and_no_traceback() -> None:
    command = [sys.executable, "-m", "stages.sft", "ppo.kl_betta=1"]
    done = child_process.run(command, cwd=ROOT)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    assert "did you mean ppo.kl_beta?" in done.stderr


def test_the_settings_of_the_annotation_app_are_valid() -> None:
    settings = load_settings(str(APP_SETTINGS))
    assert {project.dimension: project.ask_safety for project in settings.projects} == {
        "helpfulness": False,
        "safety": True,
    }
    assert settings.host == "127.0.0.1"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("seed: 1\nsft: [\n", ", line 3: not YAML"),
        ("seed: 1\nseed: 2\n", ", line 2: not YAML (found duplicate key seed)"),
        ("seed: 1\n\t- 2\n", ", line 2: not YAML"),
        ("seed: ${nowhere}\n", "'nowhere' not found"),
        ("- 1\n", "a mapping of sections, found list"),
        (b"\xff\xfe", "can't decode byte"),
    ],
)
def test_a_mistake_in_a_file_names_file_and_line(text: str | bytes, named: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as caught:
        load_recipe(str(file))
    assert str(caught.value).startswith(str(file)) and named in str(caught.value)


@pytest.mark.parametrize(
    "override",
    ["sft.data=[a", "sft.data={a: ", "sft.data=${nowhere}", "seed=!!python/name:os.system x", "run_dir=\udcff"],
)
def test_an_override_that_cannot_be_read_is_named(override: str) -> None:
    message = refusal("seed=1", override, "rounds=2")
    assert message.startswith(f"{override!r} on the command line: ")


@pytest.mark.parametrize("override", ["ppo.updates=some", "ppo.updates.x=3", "ppo=3", "ppo.kl_betta=1"])
def test_a_wrong_value_says_that_it_is_from_the_command_line(override: str) -> None:
    assert "on the command line" in refusal(override)
    assert "on the command line" not in refusal("seed=none").replace("seed: ", "").partition("\n")[0]
