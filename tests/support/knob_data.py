"""Inputs of the knob tests, small and of a known make, and the runs that their stages go on from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from stage_fixtures import TOY, own_model, write_lines

from alignment.data.records import GRADES

BINS = ("preferred_safe_other_unsafe", "both_safe", "both_unsafe")
N_PAIRS = 48
"""Of each dimension in a file of pairs; grades and safety bins go round."""
N_VOTED = 12
"""Pairs that three annotators judged; of every fourth pair, only two did, and they do not agree."""
GATE = "always_safety"
"""Of the plugin."""
PLUGIN = f"""
from alignment.reward.gate import GATES, GatedScores
GATES[{GATE!r}] = lambda helpfulness, safety, is_safety, *, threshold_probability: GatedScores(safety, is_safety | True)
"""
OWN_CODE = """
from transformers import LlamaConfig, LlamaForCausalLM


class OwnConfig(LlamaConfig):
    model_type = "own"


class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def pair(name: str, dimension: str, number: int, **changes: Any) -> dict[str, Any]:
    """A comparison of this project's own format."""
    return {
        "id": f"{name}-{dimension}-{number}",
        "prompt": [user(f"{name} {dimension} {number}")],
        "chosen": [answer("the cat sat" + " there" * (number % 5))],
        "rejected": [answer("no" + " no" * (number % 3))],
        "dimension": dimension,
        "grade": GRADES[number % len(GRADES)],
        "safety": {"bin": BINS[number % len(BINS)]},
        "annotator_id": "ann",
        "conversation_id": f"{name}-{dimension}-{number}",
        **changes,
    }


def votes(dimension: str, number: int) -> list[dict[str, Any]]:
    """What annotators said of a pair: two agree and one does not, or one stands against one."""
    made = [pair("voted", dimension, number, annotator_id=f"ann-{vote}") for vote in range(3)]
    made = [{**item, "id": f"{item['id']}-{vote}"} for vote, item in enumerate(made)]
    made[-1]["chosen"], made[-1]["rejected"] = made[-1]["rejected"], made[-1]["chosen"]
    made[-1]["safety"] = {"bin": "both_safe"}
    return made[1:] if number % 4 == 0 else made


def every(source: Path, target: Path, step: int, offset: int) -> str:
    """Every so many lines of a file."""
    return str(write_lines(target, list(source.read_text(encoding="utf-8").splitlines()[offset::step])))


def knob_files(folder: Path, files: dict[str, str]) -> dict[str, str]:
    """All inputs by name: the reduced toy's, a second one of each kind, and some that are made for one setting."""
    demonstrations = Path(files["demonstrations"]).read_text(encoding="utf-8").splitlines()
    dimensions = ("helpfulness", "safety")
    twofold = [
        {"messages": [user(f"tell {n}"), answer("told")], "instruction": f"ask {n}", "output": "said"} for n in range(8)
    ]
    twofold_pairs = [
        {"prompt": f"tell {n}", "instruction": f"ask {n}", "chosen": "yes" + " so" * (n % 4), "rejected": "no"}
        for n in range(40)
    ]
    made: dict[str, list[Any]] = {
        "demonstrations_b": demonstrations[:12],
        "few": demonstrations[:4],
        "broken_pairs": [*(pair("broken", "helpfulness", number) for number in range(N_PAIRS)), '{"id": "x"}'],
        "labelled_pairs": [pair("labelled", "helpfulness", number, margin="much") for number in range(N_PAIRS)],
        "twofold": twofold,
        "twofold_pairs": twofold_pairs,
        **{
            name: [pair(name, dimension, number) for dimension in dimensions for number in range(N_PAIRS)]
            for name in ("pairs_a", "pairs_b")
        },
        "votes": [vote for dimension in dimensions for n in range(N_VOTED) for vote in votes(dimension, n)],
        "pretraining_b": list(Path(files["pretraining"]).read_text(encoding="utf-8").splitlines()[:60]),
    }
    found = {name: str(write_lines(folder / f"{name}.jsonl", rows)) for name, rows in made.items()}
    for name, step in (("prompts", 20), ("selection_prompts", 15), ("heldout_prompts", 10)):
        found[f"{name}_b"] = every(TOY / f"{name}.jsonl", folder / f"{name}_b.jsonl", step, 1)
    (folder / "gate_plugin.py").write_text(PLUGIN, encoding="utf-8")
    found["plugin"] = str(folder / "gate_plugin.py")
    found["model_a"] = str(own_model(folder / "model_a", context_tokens=1024))
    found["model_b"] = str(own_model(folder / "model_b", family="qwen2", context_tokens=512))
    found["model_with_code"] = str(model_with_code(folder / "model_with_code", Path(found["model_a"])))
    for name in ("one", "two"):
        found[f"app_{name}"] = str(app_settings(folder / f"app_{name}.json", title=name))
    return {**files, **found}


def model_with_code(folder: Path, plain: Path) -> Path:
    """A model that cannot be loaded without the Python code beside it."""
    shutil.copytree(plain, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    classes = {"AutoConfig": "own_code.OwnConfig", "AutoModelForCausalLM": "own_code.OwnModel"}
    config |= {"model_type": "own", "architectures": ["OwnModel"], "auto_map": classes}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "own_code.py").write_text(OWN_CODE, encoding="utf-8")
    return folder


def app_settings(file: Path, *, title: str) -> Path:
    """Settings of the annotation app, with a project for each dimension."""
    projects = {
        name: {"title": f"{title} {name}", "dimension": name, "ask_safety": name == "safety"}
        for name in ("helpfulness", "safety")
    }
    file.write_text(json.dumps({"projects": projects, "qualification": {"required": False}}), encoding="utf-8")
    return file


OWN_PAIRS = ("reward.helpfulness.data={pairs_a}", "reward.safety.data={pairs_a}")
"""Reward models that learn from a file, so that no comparison has to be collected."""


def starts(folder: Path, files: dict[str, str], sft_run: Path) -> Callable[[str], Path]:
    """Gives the run of a name, made when it is asked for.

    ``sft``; ``scored`` and ``guarded`` have reward models; ``judged`` is a whole round.
    """
    from stage_fixtures import reduced_recipe

    from stages.pipeline import run_stages
    from stages.reward import train_reward_models

    def settings(*more: str) -> list[str]:
        return [item.format(**files) for item in (*OWN_PAIRS, *more)]

    @cache
    def start(name: str) -> Path:
        if name == "sft":
            return sft_run
        run = Path(shutil.copytree(start("scored") if name == "judged" else sft_run, folder / name))
        if name == "scored":
            train_reward_models.run(reduced_recipe(files, run, *settings()))
        elif name == "guarded":
            train_reward_models.run(reduced_recipe(files, run, *settings("reward.guard_share=0.5")))
        elif name == "judged":
            run_stages.run(reduced_recipe(files, run, *settings("ppo.method=rejection")))
        return run

    return start
