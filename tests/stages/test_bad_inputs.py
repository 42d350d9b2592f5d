"""Bad inputs, each through a stage's own door: one line that says what, where and what to do, exit code 2, no loss.

Those that other tests look at more closely stand here too where they can be turned through a command line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from stage_fixtures import contents, own_data, own_model, put_right_afterwards, reduced_recipe, without_manifests

from stages.__main__ import main as tandem
from stages.door.progress_and_exit import guarded
from stages.reward import train_reward_models
from stages.sft import finetune

PROMPT_FILES = ("prompts", "selection_prompts", "heldout_prompts")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and a model of one's own, a recipe, and a run that is finished up to the reward models."""
    folder = tmp_path_factory.mktemp("made")
    own_data(folder / "data")
    own_model(folder / "model")
    names = (*PROMPT_FILES, "demonstrations", "pairs")
    files = {name: str(folder / "data" / f"{name}.jsonl") for name in names}
    settings = [f"model.name_or_path={folder / 'model'}", "evaluate.judge=none", "reward.heldout_share=0.3"]
    settings += [f"reward.{name}.data={files['pairs']}" for name in ("helpfulness", "safety")]
    recipe = reduced_recipe({**files, "pretraining": "none.jsonl"}, folder / "run", *settings)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    assert guarded(lambda: finetune.run(recipe)) == 0
    assert guarded(lambda: train_reward_models.run(recipe)) == 0
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Iterator[Path]:
    """The folder itself, to be spoilt; it is put right afterwards."""
    with put_right_afterwards(made, tmp_path / "kept"):
        yield made


class Bad(NamedTuple):
    """A command line, what is wrong with the files, and what has to be said."""

    words: str
    """After ``{here}`` was put in: ``sft sft.data={here}/x``; the recipe is given unless the words name one."""
    said: str
    """Every part between ``|`` has to be there."""
    spoil: Callable[[Path], object] = lambda here: None


def write(name: str, content: str | bytes) -> Callable[[Path], object]:
    """Have a file hold this instead."""
    return lambda here: (here / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def line(name: str, row: dict[str, Any]) -> Callable[[Path], object]:
    """Add a line to a file."""
    return lambda here: (here / name).write_text((here / name).read_text() + json.dumps(row) + "\n")


def weights(name: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    """Change the weights of a file."""

    def spoil(here: Path) -> None:
        found = load_file(str(here / name))
        change(found)
        save_file(found, str(here / name), metadata={"format": "pt"})

    return spoil


def cut(name: str, share: float) -> Callable[[Path], object]:
    """Cut a file off."""
    return lambda here: (here / name).write_bytes((raw := (here / name).read_bytes())[: int(share * len(raw))])


def both(*changes: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda here: [change(here) for change in changes]


def edit_json(name: str, **values: Any) -> Callable[[Path], object]:
    return lambda here: (here / name).write_text(json.dumps({**json.loads((here / name).read_text()), **values}))


def one_more_token(here: Path) -> None:
    """Of the tokenizer alone."""
    found = json.loads((here / "model/tokenizer.json").read_text())
    number = 1 + max(found["model"]["vocab"].values())
    found["model"]["vocab"]["more"] = 10 + number
    (here / "model/tokenizer.json").write_text(json.dumps(found))


def say(text: str, answer: str = "yes") -> list[dict[str, str]]:
    return [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]


DATA, MODEL, ADAPTER = "data/demonstrations.jsonl", "model/model.safetensors", "adapter_model.safetensors"
AGAIN = "sft overwrite=true "
PAIR = {"id": "x", "prompt": say("why")[:1], "chosen": say("", "a")[1:], "rejected": say("", "b")[1:]}
BAD: dict[str, Bad] = {
    # Settings
    "misspelt setting": Bad("ppo ppo.updatess=3", "ppo.updatess|ppo.updates"),
    "negative count": Bad("ppo ppo.updates=-1", "ppo.updates|greater"),
    "word for a number": Bad("ppo ppo.updates=ten", "ppo.updates|ten"),
    "infinite number": Bad("ppo ppo.kl_beta=.inf", "ppo.kl_beta|finite"),
    "no number": Bad("ppo ppo.learning_rate=.nan", "ppo.learning_rate|finite"),
    "boolean for a seed": Bad("ppo seed=true", "seed: a number is wanted here, not true or false"),
    "broken seed": Bad("ppo seed=1.5", "seed|integer"),
    "no reward model": Bad("reward reward.models=[]", "reward.models"),
    "unknown reward model": Bad("reward reward.models=[kindness]", "reward.models|kindness"),
    "unknown head": Bad("reward overwrite=true reward.head.name=liner", "unknown reward head 'liner'|valid"),
    "unknown loss": Bad("reward overwrite=true reward.helpfulness.loss=rank", "unknown preference loss 'rank'|valid"),
    "unknown gate": Bad("ppo ppo.gate=fence", "fence|threshold"),
    "unknown margin": Bad("reward overwrite=true reward.helpfulness.margin=huge", "huge"),
    "no rank": Bad("ppo model.lora.r=0", "model.lora.r|greater"),
    "layers that are not there": Bad("ppo model.lora.target_modules=[nowhere]", "nowhere"),
    "minibatch that does not divide the batch": Bad(
        "ppo ppo.minibatch_size_episodes=3", "ppo: minibatch_size_episodes (3) must divide"
    ),
    "safety share above one": Bad("ppo ppo.safety_share=2", "ppo.safety_share|1"),
    "everything selects": Bad("ppo data.selection_prompts=null data.selection_share=1", "data.selection_share"),
    "one temperature": Bad("annotate annotate.temperatures=[1.0]", "annotate.temperatures"),
    "comparisons from nowhere": Bad("annotate annotate.source=dataset", "annotate.data=FILE"),
    "a judge of another world": Bad(
        "evaluate evaluate.judge=gold", "the gold judge does not know prompt h0|evaluate.judge=none"
    ),
    "no round": Bad("pipeline rounds=0", "rounds|greater"),
    "ablation of nothing": Bad("reward --ablate colour", "colour|margin"),
    "best of no snapshots": Bad("ppo ppo.method=ppo ppo.keep=best ppo.snapshot_prompts=0", "ppo.keep=best needs"),
    "guard that is not there": Bad(
        "ppo ppo.method=ppo ppo.on_overoptimization=stop", "ppo.on_overoptimization=stop needs a guard"
    ),
    "export of nothing": Bad("export export.what=value", "export.what"),
    "export of a round that was not": Bad("export export.what=safety export.round=7", "round-7/reward|Make it first"),
    "a policy nobody made": Bad("chat --policy ppo-3", "no policy 'ppo-3'|it has: sft"),
    # Command line and recipe
    "override without a value": Bad("ppo ppo.updates", "ppo.updates"),
    "value without a key": Bad("ppo =3", "=3"),
    "no such recipe": Bad("ppo --config {here}/none.yaml", "none.yaml"),
    "recipe that is a folder": Bad("ppo --config {here}/data", "data"),
    "recipe that is no text": Bad("ppo --config {here}/x.yaml", "x.yaml", write("x.yaml", b"\xff\xfe\x00a: \x81")),
    "recipe with a tab": Bad("ppo --config {here}/x.yaml", "x.yaml|line 2", write("x.yaml", "ppo:\n\tupdates: 3\n")),
    "recipe that is a list": Bad("ppo --config {here}/x.yaml", "x.yaml", write("x.yaml", "- 1\n- 2\n")),
    "key that is there twice": Bad("ppo --config {here}/x.yaml", "x.yaml|seed", write("x.yaml", "seed: 1\nseed: 2\n")),
    "run_dir that is a file": Bad("sft run_dir={here}/recipe.yaml", "recipe.yaml"),
    "plugin that is not there": Bad("ppo plugins=[{here}/none.py]", "none.py"),
    "plugin that cannot be read": Bad("ppo plugins=[{here}/x.py]", "x.py|line 1", write("x.py", "def f(:\n")),
    "plugin that fails": Bad(
        "ppo plugins=[{here}/x.py]", "x.py|no_such_module", write("x.py", "import no_such_module\n")
    ),
    "command that is none": Bad("pop ppo.updates=3", "no such command: pop|did you mean ppo"),
    # Models
    "folder that is none": Bad(AGAIN + "model.name_or_path=./none", "./none|no such folder"),
    "file for a folder": Bad(AGAIN + "model.name_or_path={here}/recipe.yaml", "that is a file"),
    "name that the Hub cannot be asked for": Bad(AGAIN + "model.name_or_path=nobody/none", "nobody/none|Hub"),
    "folder without a model": Bad(AGAIN + "model.name_or_path={here}/data", "no causal language model there"),
    "weights that are missing": Bad(AGAIN, "lack 1 weights|norm", weights(MODEL, lambda w: w.pop("model.norm.weight"))),
    "weights of another shape": Bad(
        AGAIN,
        "another shape|model.norm.weight",
        weights(MODEL, lambda w: w.update({"model.norm.weight": torch.ones(3)})),
    ),
    "weights that are no numbers": Bad(
        AGAIN, "not finite|model.norm.weight", weights(MODEL, lambda w: w["model.norm.weight"].fill_(torch.nan))
    ),
    "weights that were cut off": Bad(AGAIN, "cut off or damaged", cut(MODEL, 0.5)),
    "weights without a byte": Bad(AGAIN, "cut off or damaged", write(MODEL, b"")),
    "config.json that was cut off": Bad(AGAIN, "model", cut("model/config.json", 0.5)),
    "tokenizer that was cut off": Bad(AGAIN, "no tokenizer there", cut("model/tokenizer.json", 0.5)),
    "more tokens than embeddings": Bad(AGAIN, "embeddings, and none for 1 tokens|more", one_more_token),
    "context of eight tokens": Bad(AGAIN, "8", edit_json("model/config.json", max_position_embeddings=8)),
    "template that is broken": Bad(AGAIN, "template", write("model/chat_template.jinja", "{% for m in messages %}")),
    "reward model that was cut off": Bad(
        "ppo",
        "cut off or damaged",
        both(cut(f"run/round-1/reward/safety/{ADAPTER}", 0.5), lambda here: without_manifests(here / "run")),
    ),
    "reward model that is none": Bad("ppo ppo.reward_models.safety={here}/data", "data"),
    "adapter whose settings are no JSON": Bad(
        "ppo",
        "adapter_config.json",
        both(write("run/round-1/reward/safety/adapter_config.json", "{"), lambda here: without_manifests(here / "run")),
    ),
    # Data
    "folder for a file": Bad(AGAIN + "sft.data={here}/data", "data"),
    "file without a record": Bad(AGAIN, "demonstrations.jsonl", write(DATA, "")),
    "file that is not gzipped": Bad(AGAIN + "sft.data={here}/x.jsonl.gz", "x.jsonl.gz", write("x.jsonl.gz", "{}\n")),
    "file that is no Parquet": Bad(AGAIN + "sft.data={here}/x.parquet", "x.parquet", write("x.parquet", "{}\n")),
    "half a character": Bad(
        AGAIN, "line 9|half a character|demonstrations.jsonl", line(DATA, {"id": "x", "messages": say("\ud800")})
    ),
    "unknown role": Bad(
        AGAIN, "line 9|role", line(DATA, {"id": "x", "messages": [{"role": "narrator", "content": "a"}]})
    ),
    "system after the user": Bad(
        AGAIN, "line 9", line(DATA, {"id": "x", "messages": [*say("a"), {"role": "system", "content": "b"}]})
    ),
    "demonstration without an answer": Bad(AGAIN, "line 9", line(DATA, {"id": "x", "messages": say("a")[:1]})),
    "nothing said": Bad(AGAIN, "line 9|empty", line(DATA, {"id": "x", "messages": say("a", "  ")})),
    "two prompts with one id": Bad(
        "ppo", "prompts.jsonl|'p0'", line("data/prompts.jsonl", {"id": "p0", "messages": say("other")[:1]})
    ),
    "unknown grade": Bad(
        "reward overwrite=true", "line 41|grade", line("data/pairs.jsonl", {**PAIR, "grade": "superb"})
    ),
    "label that nobody reads": Bad(
        "reward overwrite=true", "data.unused=[label]", line("data/pairs.jsonl", {**PAIR, "label": 3})
    ),
    "held-out prompt among the demonstrations": Bad(
        AGAIN, "held out 1", line(DATA, {"id": "x", "messages": say("Held out 1?")})
    ),
    "held-out prompt that selects": Bad(
        "ppo", "held out 2", line("data/selection_prompts.jsonl", {"id": "x", "messages": say("held out 2")[:1]})
    ),
    "no prompt file": Bad("ppo data.prompts={here}/none.jsonl", "none.jsonl"),
    "format that is none": Bad(AGAIN + "sft.format=xml", "unknown data format 'xml'|tandem"),
    # What a run left
    "result that is null": Bad(
        "ppo", "run/sft is not what its stage made: result.json has changed", write("run/sft/result.json", "null")
    ),
    "policy.json that is a list": Bad("chat", "policy.json", write("run/policy.json", "[]")),
    "no run": Bad("doctor --run {here}/none", "no such run"),
}


@pytest.mark.parametrize("name", BAD)
def test_one_line_says_what_where_and_what_to_do(
    name: str, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = BAD[name]
    bad.spoil(here)
    monkeypatch.chdir(here)
    stage, *words = bad.words.format(here=here).split()
    own = ["--config", str(here / "recipe.yaml")]
    before = contents(here / "run")
    capsys.readouterr()
    code = tandem([stage, *([] if {"--config", "--run"} & set(words) else own), *words])
    shown = capsys.readouterr()
    assert code == 2, shown
    assert shown.err.count("error: ") == 1 and "Traceback" not in shown.err + shown.out
    message = shown.err[shown.err.index("error: ") :]
    for part in bad.said.split("|"):
        assert part.lower() in message.lower(), message
    assert contents(here / "run") == before
