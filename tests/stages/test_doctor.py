"""The doctor: real causes planted in a tiny PPO, recipes whose parts do not fit, and the result on a run."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ppo_history import from_update, healthy
from safetensors.torch import load_file, save_file
from stage_fixtures import own_data, own_model, reduced_recipe, without_manifests
from tiny import LORA, add_reward_model, encoded_prompts, randomize, tiny_tokenizer
from transformers import AutoModelForCausalLM

from alignment.data.encoded_dialogues import EncodedAnswer
from alignment.data.records import Demonstration, Message
from alignment.models.backbone import Backbone, Role
from alignment.rl.health.health_history import HealthSettings
from alignment.rl.health.health_watch import Finding, examine
from alignment.rl.ppo import PPO
from alignment.rl.ppo_metrics import rollout_metrics
from alignment.run.run_folder import RunFolder
from alignment.settings.ppo_sections import PPOSection
from alignment.settings.read_recipe import save_recipe
from alignment.settings.recipe import Recipe
from alignment.settings.sections import SamplingSection
from stages.doctor import model_checks, recipe_checks
from stages.doctor.check_subject import CheckResult, Subject
from stages.doctor.recipe_checks import CHECKS, check_recipe
from stages.reward import train_reward_models
from stages.sft import finetune

EPISODES = 96


def errors(metrics: dict[str, float], **settings: Any) -> dict[str, Finding]:
    """What is broken, by the check's name. A model of random weights does not stop either, which is a warning."""
    found = examine([{"update": 1, **metrics}], HealthSettings(batch_size_episodes=EPISODES, **settings))
    return {finding.check: finding for finding in found if finding.severity == "error"}


class TinyPPO:
    """One update of PPO on a tiny model, with places to spoil it."""

    def __init__(self, backbone: Backbone, *, dropout: float = 0.0) -> None:
        self.models = {
            name: add_reward_model(backbone, name, seed=n) for n, name in enumerate(("helpfulness", "safety"))
        }
        backbone.add_adapter("policy", LORA.model_copy(update={"dropout": dropout}))
        randomize(backbone, "policy")
        settings = PPOSection(
            batch_size_episodes=EPISODES,
            minibatch_size_episodes=EPISODES,
            micro_batch_size_episodes=EPISODES,
            learning_rate=1e-2,
            sampling=SamplingSection(temperature=0.8, max_new_tokens=6, batch_size_prompts=EPISODES),
        )
        self.ppo = PPO(backbone, self.models, settings, seed=0)

    def update(self, *, sampler: str = "policy", before_update: Callable[[], Any] = lambda: None) -> dict[str, float]:
        torch.manual_seed(0)
        ppo = self.ppo
        policy, ppo.policy = ppo.policy, Role(ppo.backbone, sampler)
        episodes = ppo.sample(encoded_prompts(ppo.backbone, EPISODES), 1)
        ppo.policy = policy
        rollout = ppo.score(episodes)
        gated = ppo.gate(rollout)
        advantages = ppo.advantages(rollout, ppo.token_rewards(gated))
        before_update()
        losses = ppo.update(rollout, advantages)
        # One minibatch: the mean over minibatches is that of the first.
        return {
            "policy/first_approx_kl": losses["policy/approx_kl"],
            **rollout_metrics(gated, advantages),
            **losses,
        }


class TestRealCauses:
    def test_nothing_wrong(self, backbone: Backbone) -> None:
        tiny = TinyPPO(backbone, dropout=0.3)
        for _ in range(2):
            assert errors(tiny.update()) == {}

    @pytest.mark.parametrize("dropout", [0.05, 0.3])
    def test_dropout(self, backbone: Backbone, dropout: float) -> None:
        tiny = TinyPPO(backbone, dropout=dropout)
        assert backbone.peft is not None
        found = errors(tiny.update(before_update=backbone.peft.train), lora_dropout=dropout)
        assert list(found) == ["first ratio"]
        assert "dropout" in found["first ratio"].likely_cause

    def test_another_temperature_in_the_update(self, backbone: Backbone) -> None:
        tiny = TinyPPO(backbone)

        def change() -> None:
            sampling = SamplingSection(temperature=1.3, max_new_tokens=6)
            tiny.ppo.settings = tiny.ppo.settings.model_copy(update={"sampling": sampling})

        found = errors(tiny.update(before_update=change), temperature=0.8)
        assert list(found) == ["first ratio"]
        assert "another temperature than 0.8" in found["first ratio"].likely_cause

    def test_answers_of_another_adapter(self, backbone: Backbone) -> None:
        tiny = TinyPPO(backbone)
        randomize(backbone, "policy", seed=5, scale=0.3)  # far from the reference, as after many updates
        assert errors(tiny.update()) == {}
        randomize(backbone, "policy", seed=5, scale=0.3)
        assert list(errors(tiny.update(sampler="reference"))) == ["negative KL"]

    def test_reward_models_without_a_head(self, backbone: Backbone) -> None:
        tiny = TinyPPO(backbone)
        with torch.no_grad():
            for model in tiny.models.values():
                for parameter in model.head.parameters():
                    parameter.zero_()
        assert list(errors(tiny.update())) == ["constant scores"]

    def test_a_frozen_policy(self, backbone: Backbone) -> None:
        tiny = TinyPPO(backbone)

        def freeze() -> None:
            for parameter in tiny.ppo.policy_parameters:
                parameter.requires_grad_(False)

        assert list(errors(tiny.update(before_update=freeze))) == ["zero policy gradient"]


# -- before a run ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and data of one's own, and a run of them as far as the reward models."""
    folder = tmp_path_factory.mktemp("made")
    own_data(folder / "data")
    own_model(folder / "model")
    prompts = folder / "data" / "prompts.jsonl"
    rows = [json.loads(line) for line in prompts.read_text().splitlines()]
    prompts.write_text(
        "".join(
            json.dumps({**row, "dimension": "safety" if n % 2 else "helpfulness"}) + "\n" for n, row in enumerate(rows)
        )
    )
    finetune.run(recipe_in(folder))
    train_reward_models.run(recipe_in(folder))
    return folder


@pytest.fixture
def ready(made: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    shutil.copytree(made, tmp_path / "made")
    return tmp_path / "made"


def recipe_in(folder: Path, *overrides: str) -> Recipe:
    names = ("prompts", "selection_prompts", "heldout_prompts", "demonstrations", "pairs")
    files = {name: str(folder / "data" / f"{name}.jsonl") for name in names} | {"pretraining": "none"}
    settings = [f"model.name_or_path={folder / 'model'}", "evaluate.judge=none", "reward.heldout_share=0.3"]
    settings += [f"reward.{name}.data={files['pairs']}" for name in ("helpfulness", "safety")]
    return reduced_recipe(files, folder / "run", *settings, *overrides)


def fresh(folder: Path, *overrides: str) -> Recipe:
    """The same before any stage: a finished one would notice that its data has changed."""
    return recipe_in(folder, "run_dir=elsewhere", *overrides)


def results(recipe: Recipe) -> dict[str, CheckResult]:
    return dict(check_recipe(Subject(recipe)))


def only(recipe: Recipe, *statuses: str) -> dict[str, str]:
    """What the checks with one of these results said, by their names."""
    found = results(recipe)
    assert list(found) == list(CHECKS), "one that fails stops no other"
    return {name: f"{v.what}. {v.what_to_do}" for name, v in found.items() if v.status in statuses}


def append(file: Path, row: object) -> None:
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(row) + "\n")


def spoil_weights(file: Path, value: float, *names: str) -> None:
    state = load_file(str(file))
    chosen = {name: torch.full_like(tensor, value) for name, tensor in state.items() if not names or name in names}
    save_file({**state, **chosen}, str(file), metadata={"format": "pt"})


class TestRecipeThatFits:
    def test_all_is_well_with_a_run(self, made: Path) -> None:
        found = results(recipe_in(made))
        assert {name: v for name, v in found.items() if v.status != "ok"} == {}
        assert "4 helpfulness, 4 safety" in found["prompts"].what
        assert "<|end|>" in found["special tokens"].what
        assert "8 demonstrations" in found["safety model"].what

    def test_before_any_stage(self, made: Path) -> None:
        recipe = fresh(made)
        assert only(recipe, "warning", "problem") == {}
        assert set(only(recipe, "skipped")) == {"helpfulness model", "safety model"}

    def test_the_toy_before_its_base_is_made(self, made: Path) -> None:
        recipe = fresh(made, "model.name_or_path=toy")
        assert only(recipe, "problem", "warning") == {}
        assert "python -m stages.base" in only(recipe, "skipped")["model"]
        assert "prompts" in only(recipe, "ok")

    def test_labels_that_the_recipe_leaves_unused(self, ready: Path) -> None:
        demonstrations = ready / "data" / "demonstrations.jsonl"
        rows = [json.loads(line) for line in demonstrations.read_text().splitlines()]
        demonstrations.write_text("".join(json.dumps({**row, "label": "good"}) + "\n" for row in rows))
        assert "data.unused=[label]" in only(fresh(ready), "problem")["demonstrations"]
        assert "demonstrations" not in only(fresh(ready, "data.unused=[label]"), "problem")

    def test_nothing_is_written(self, made: Path) -> None:
        before = sorted(made.rglob("*"))
        results(recipe_in(made))
        assert sorted(made.rglob("*")) == before


class TestModelThatDoesNotFit:
    def checked(self, folder: Path, *overrides: str, status: str = "problem") -> dict[str, str]:
        return only(fresh(folder, *overrides), status)

    def test_no_model(self, made: Path) -> None:
        found = self.checked(made, "model.name_or_path=nowhere/at-all")
        assert list(found) == ["model", "chat template"]
        assert "no causal language model" in found["model"] and "no tokenizer" in found["chat template"]
        skipped = self.checked(made, "model.name_or_path=nowhere/at-all", status="skipped")
        assert "needs the model's weights, see above" in skipped["adapters"]

    def test_weights_that_are_not_numbers(self, ready: Path) -> None:
        spoil_weights(ready / "model" / "model.safetensors", float("nan"), "lm_head.weight")
        assert "not finite" in self.checked(ready)["model"]

    def test_a_tokenizer_with_more_tokens_than_embeddings(self, ready: Path) -> None:
        tokenizer = tiny_tokenizer()
        tokenizer.add_tokens([f"word{n}" for n in range(5)])
        tokenizer.save_pretrained(str(ready / "model"))
        found = self.checked(ready)
        assert list(found) == ["vocabulary"]
        assert "resize_token_embeddings" in found["vocabulary"]

    @pytest.mark.parametrize(("share", "is_said"), [(0.04, False), (0.06, True)])
    def test_embeddings_that_no_token_has(self, share: float, is_said: bool, ready: Path) -> None:
        model = AutoModelForCausalLM.from_pretrained(str(ready / "model"))
        tokens = len(tiny_tokenizer())
        model.resize_token_embeddings(round(tokens / (1 - share)))
        model.save_pretrained(str(ready / "model"))
        assert self.checked(ready) == {}
        assert ("many are never used" in self.checked(ready, status="warning").get("vocabulary", "")) == is_said

    def test_a_stop_token_without_an_embedding(self, ready: Path) -> None:
        tokenizer = tiny_tokenizer()
        tokenizer.add_special_tokens({"eos_token": "<|new|>"})
        tokenizer.save_pretrained(str(ready / "model"))
        assert set(self.checked(ready)) == {"vocabulary", "special tokens"}

    def test_no_chat_template(self, ready: Path) -> None:
        shutil.rmtree(ready / "model")
        own_model(ready / "model", template=False)
        assert self.checked(ready) == {}
        found = self.checked(ready, status="warning")
        assert list(found) == ["chat template"] and "Llama 2" in found["chat template"]

    def test_a_chat_template_that_cannot_be_used(self, ready: Path) -> None:
        tokenizer = tiny_tokenizer()
        tokenizer.chat_template = "{{ messages[0]['content'] }}"
        tokenizer.save_pretrained(str(ready / "model"))
        assert list(self.checked(ready)) == ["chat template"]
        skipped = self.checked(ready, status="skipped")
        assert "needs the chat template" in skipped["special tokens"]
        assert "needs the chat template" in skipped["room for answers"]

    def test_padding_with_the_stop_token_is_well(self, ready: Path) -> None:
        tiny_tokenizer(pad_is_eos=True).save_pretrained(str(ready / "model"))
        assert self.checked(ready) == {}
        assert "masks come from lengths" in self.checked(ready, status="ok")["special tokens"]

    def test_dropout_and_unknown_layers(self, ready: Path) -> None:
        found = self.checked(ready, "model.lora.dropout=0.1", status="ok")
        assert "dropout 0.1 in SFT and the reward models, none in PPO" in found["adapters"]
        assert "nowhere_proj" in self.checked(ready, "model.lora.target_modules=[nowhere_proj]")["adapters"]


class TestDataThatDoesNotFit:
    def test_a_prompt_too_long(self, ready: Path) -> None:
        long = {"role": "user", "content": "the sea " * 300}
        append(ready / "data" / "prompts.jsonl", {"id": "long", "messages": [long]})
        found = only(fresh(ready), "problem")
        assert list(found) == ["room for answers"] and "prompt long has" in found["room for answers"]
        found = only(fresh(ready, "data.too_long=skip"), "warning")
        assert "1 of 9 prompts are too long" in found["room for answers"]

    def test_no_room_for_answers_to_held_out_prompts(self, made: Path) -> None:
        found = only(fresh(made, "evaluate.sampling.max_new_tokens=510"), "problem")
        assert list(found) == ["room for answers"] and "prompt h0 has" in found["room for answers"]

    @pytest.mark.parametrize(("source", "problems"), [("simulated", ["room for answers"]), ("dataset", [])])
    def test_no_room_for_answers_that_are_compared(self, source: str, problems: list[str], made: Path) -> None:
        pairs = made / "data" / "pairs.jsonl"
        settings = [f"annotate.source={source}", f"annotate.data={pairs}", "annotate.max_new_tokens=510"]
        assert list(only(fresh(made, *settings, "reward.safety.data=collected"), "problem")) == problems
        assert list(only(fresh(made, *settings), "problem")) == []

    def test_a_demonstration_too_long(self, made: Path) -> None:
        assert list(only(fresh(made, "sft.max_length_tokens=5"), "problem")) == ["room for demonstrations"]

    def test_overlap(self, ready: Path) -> None:
        append(ready / "data" / "prompts.jsonl", {"id": "x", "messages": [{"role": "user", "content": "HELD out 2"}]})
        assert list(only(fresh(ready), "problem")) == ["overlap"]

    def test_a_demonstration_of_a_held_out_prompt(self, ready: Path) -> None:
        turns = [{"role": "user", "content": "held out 2"}, {"role": "assistant", "content": "yes"}]
        append(ready / "data" / "demonstrations.jsonl", {"id": "x", "messages": turns})
        found = only(fresh(ready), "problem")
        assert "demonstrations.jsonl" in found["overlap"]

    def test_no_safety_prompts(self, ready: Path) -> None:
        own_data(ready / "data")
        assert "none is tagged safety" in only(fresh(ready), "warning")["prompts"]
        found = only(fresh(ready, "ppo.safety_share=0.5"), "problem")
        assert "ppo.safety_share=0.5" in found["batches"]

    def test_more_episodes_than_prompts(self, made: Path) -> None:
        found = only(fresh(made, "ppo.batch_size_episodes=12"), "warning")
        assert list(found) == ["batches"] and "4 of the 12 prompts" in found["batches"]
        found = only(fresh(made, "ppo.safety_share=0.75"), "warning")
        assert "2 of the 8 prompts" in found["batches"]

    def test_files_that_cannot_be_read(self, ready: Path) -> None:
        (ready / "data" / "demonstrations.jsonl").unlink()
        append(ready / "data" / "prompts.jsonl", {"id": "x"})
        append(ready / "data" / "pairs.jsonl", {"id": "x"})
        found = only(fresh(ready), "problem")
        assert {"prompts", "demonstrations", "comparisons"} <= found.keys()
        assert "overlap" not in found, "what rests on them is skipped"


class TestRewardModelsThatDoNotFit:
    @pytest.mark.parametrize(("value", "said"), [(0.0, "all the same"), (float("nan"), "not finite")])
    def test_a_head_without_its_weights(self, ready: Path, value: float, said: str) -> None:
        spoil_weights(ready / "run/round-1/reward/safety/head.safetensors", value)
        without_manifests(ready / "run")
        found = only(recipe_in(ready), "problem")
        assert list(found) == ["safety model"] and said in found["safety model"]

    def test_those_of_another_sft_model(self, ready: Path) -> None:
        spoil_weights(ready / "run/sft/model.safetensors", 0.5)
        RunFolder(ready / "run").manifests.accept("sft")
        found = only(recipe_in(ready), "problem")
        assert list(found) == ["helpfulness model", "safety model"]
        assert "was made before the present sft" in found["safety model"]

    def test_those_that_the_recipe_names_instead(self, made: Path) -> None:
        folder = made / "run/round-1/reward/safety"
        recipe = recipe_in(made, "ppo.reward_models.safety=[]", f"ppo.reward_models.helpfulness=[{folder}]")
        found = results(recipe)
        assert found["safety model"].status == "skipped"
        assert found["helpfulness model"].status == "ok" and str(folder) in found["helpfulness model"].what

    def test_one_is_missing(self, ready: Path) -> None:
        shutil.rmtree(ready / "run/round-1/reward/helpfulness")
        without_manifests(ready / "run")
        assert list(only(recipe_in(ready), "problem")) == ["helpfulness model"]


# -- the command line ------------------------------------------------------------------------------------------------


def write_ppo(run: Path, rows: list[dict[str, float]], recipe: Recipe, number: int = 1) -> None:
    folder = run / f"round-{number}" / "ppo"
    folder.mkdir(parents=True)
    save_recipe(recipe, folder / "config.yaml")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of ``python -m stages.doctor``."""
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["doctor", *words])
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delitem(sys.modules, "stages.doctor", raising=False)
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("stages.doctor", run_name="__main__")
    shown = capsys.readouterr()
    return int(stopped.value.code or 0), shown.out, shown.err


class TestCommand:
    def test_a_healthy_run(
        self, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_ppo(tmp_path, healthy(), recipe_in(made))
        code, shown, _ = command(monkeypatch, capsys, "--run", str(tmp_path))
        assert code == 0
        assert "round-1/ppo: healthy in 44 updates" in shown

    def test_findings_of_every_round(
        self, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        recipe = recipe_in(made, "model.lora.dropout=0.05")
        spoilt = from_update(healthy(), 5, policy__first_ratio_mean=0.9)
        write_ppo(tmp_path, spoilt, recipe, number=10)
        write_ppo(tmp_path, from_update(healthy(), 9, policy__clip_fraction=0.5), recipe, number=2)
        code, shown, _ = command(monkeypatch, capsys, "--run", str(tmp_path))
        shown = " ".join(shown.split())  # lines are as wide as the terminal
        assert code == 1
        assert shown.index("round-2/ppo: 1 finding in 44 updates") < shown.index("round-10/ppo: 1 finding")
        assert "update 9, clip fraction (warning)" in shown and "update 5, first ratio (error)" in shown
        assert "with dropout (model.lora.dropout=0.05)" in shown, "the settings are those of the run"
        assert "or pass model.lora.dropout=0" in shown

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("--run", "nowhere"), "no such run"),
            (("--run", "{run}"), "python -m stages.ppo run_dir="),
            (("--run", "{run}", "seed=1"), "leave --config and key=value out"),
            (("ppo.updats=1",), "ppo.updates"),
        ],
    )
    def test_misuse(
        self,
        words: tuple[str, ...],
        said: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        code, _, shown = command(monkeypatch, capsys, *(word.format(run=tmp_path) for word in words))
        assert code == 2
        assert said in shown and "Traceback" not in shown

    def test_a_recipe(
        self, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        save_recipe(fresh(made, "model.lora.dropout=0.1"), tmp_path / "recipe.yaml")
        code, shown, _ = command(monkeypatch, capsys, "--config", str(tmp_path / "recipe.yaml"))
        assert code == 0
        assert [line.split()[0] for line in shown.splitlines()[:5]] == ["ok"] * 5
        assert "0 problems and 0 warnings in 15 checks" in shown
        code, shown, shown_err = command(
            monkeypatch, capsys, "--config", str(tmp_path / "recipe.yaml"), "ppo.safety_share=1", "data.prompts=none"
        )
        assert code == 1
        assert "problem prompts: " in shown and "Traceback" not in shown + shown_err

    def test_main_returns_what_it_prints(self, made: Path) -> None:
        assert list(recipe_checks.run(fresh(made))) == list(CHECKS)


def test_reward_models_are_asked_about_whole_dialogues_up_to_their_last_answer(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each once; the last answer is the one that is scored."""
    asked: list[str] = []

    def score(dialogues: Sequence[EncodedAnswer], **options: Any) -> torch.Tensor:
        asked.extend(backbone.encoder.decode(item.answer_ids) for item in dialogues)
        return torch.arange(len(dialogues), dtype=torch.float32)

    def dialogue(*texts: str) -> Demonstration:
        roles = ("user", "assistant") * 2
        messages = (Message(role=role, content=text) for role, text in zip(roles, texts, strict=False))  # type: ignore[arg-type]
        return Demonstration(id=" ".join(texts), messages=tuple(messages))

    long = dialogue("why", "the sea", "is it grey", "the sun")
    rows = [dialogue("what is it", "the cat"), long, long.model_copy(update={"id": "again"})]
    monkeypatch.setattr(model_checks, "_scorer", lambda *_: SimpleNamespace(score=score, folders=[Path("x")]))
    subject: Any = SimpleNamespace(demonstrations=(rows, None), encoder=backbone.encoder, folder=RunFolder("run"))
    assert model_checks.reward_model_scores(subject, dimension="safety").status == "ok"
    assert asked == ["the cat", "the sun"]
