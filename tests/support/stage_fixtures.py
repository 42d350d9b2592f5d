"""Reduced inputs for the stages: cut-down toy data, a recipe that runs in seconds, tiny models of other families."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from tiny import Family, save_tiny_model

from alignment.settings.read_recipe import parse_recipe
from alignment.settings.recipe import Recipe
from stages.door.progress_and_exit import guarded

ROOT = Path(__file__).resolve().parents[2]
TOY = ROOT / "data" / "toy"
SAMPLING = {"temperature": 1.0, "max_new_tokens": 6, "batch_size_prompts": 64}
REDUCED = {
    "model": {"name_or_path": "toy", "dtype": "float32", "sampling_copy": True, "lora": {"r": 2, "alpha": 4}},
    "base": {
        "steps": 8,
        "batch_size_documents": 4,
        "vocabulary_size": 280,
        "hidden_size": 16,
        "layers": 1,
        "heads": 2,
        "warmup_steps": 2,
    },
    "sft": {
        "epochs": 1,
        "batch_size_dialogues": 8,
        "micro_batch_size_dialogues": 8,
        "learning_rate": 1e-3,
        "max_length_tokens": 1024,
        "packing": False,
    },
    "annotate": {
        "helpfulness_pairs": 40,
        "safety_pairs": 20,
        "heldout_helpfulness_pairs": 20,
        "heldout_safety_pairs": 20,
        "heldout_overlap": 2,
        "max_new_tokens": 6,
    },
    "reward": {
        "helpfulness": {"mix": [], "batch_size_pairs": 16, "micro_batch_size_pairs": 16, "learning_rate": 1e-3},
        "safety": {
            "margin": "none",
            "safety_weight": 1.0,
            "mix": [{"dimension": "helpfulness", "share": 0.1}],
            "batch_size_pairs": 16,
            "micro_batch_size_pairs": 16,
            "learning_rate": 1e-3,
        },
    },
    "rejection": {
        "prompts": 6,
        "samples_per_prompt": 2,
        "epochs": 1,
        "batch_size_dialogues": 8,
        "micro_batch_size_dialogues": 8,
        "learning_rate": 1e-3,
        "sampling": SAMPLING,
    },
    "ppo": {
        "updates": 2,
        "batch_size_episodes": 8,
        "minibatch_size_episodes": 4,
        "micro_batch_size_episodes": 4,
        "learning_rate": 1e-3,
        "value": "head",
        "snapshot_every_updates": 2,
        "snapshot_prompts": 4,
        "sampling": SAMPLING,
    },
    "evaluate": {"judge": "gold", "samples": 4, "sampling": SAMPLING},
}


PROMPT_FILES = ("prompts", "selection_prompts", "heldout_prompts")


def write_lines(file: Path, rows: list[Any]) -> Path:
    """Write JSON Lines; a row that is a string is written as it is."""
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    file.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return file


def thinned(source: Path, target: Path, count: int) -> Path:
    """About ``count`` lines of a file, evenly spread."""
    lines = source.read_text(encoding="utf-8").splitlines()
    return write_lines(target, list(lines[:: max(1, len(lines) // count)]))


def reduced_data(folder: Path) -> dict[str, str]:
    """A few rows of every toy file, in ``folder``; returns name -> path."""
    counts = {
        "prompts": 110,
        "selection_prompts": 20,
        "heldout_prompts": 50,
        "demonstrations": 16,
        "pretraining": 120,
    }
    return {name: str(thinned(TOY / f"{name}.jsonl", folder / f"{name}.jsonl", n)) for name, n in counts.items()}


def reduced_recipe(files: dict[str, str], run_dir: Path, *overrides: str) -> Recipe:
    """A recipe over ``reduced_data`` whose stages take a second each."""
    values = {
        **REDUCED,
        "run_dir": str(run_dir),
        "data": {name: files[name] for name in PROMPT_FILES if name in files},
    }
    config = OmegaConf.merge(
        values,
        {"base": {"corpus": files["pretraining"]}, "sft": {"data": files["demonstrations"]}},
        OmegaConf.from_dotlist(list(overrides)),
    )
    return parse_recipe(OmegaConf.to_container(config), origin="test")


def own_model(folder: Path, *, family: Family = "llama", template: bool = True, context_tokens: int = 512) -> Path:
    """A tiny random model with its own tokenizer; without a chat template if asked."""
    save_tiny_model(folder, family=family)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": context_tokens}))
    if not template:
        for file in folder.glob("chat_template*"):
            file.unlink()
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        settings.pop("chat_template", None)
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def own_data(folder: Path) -> dict[str, str]:
    """Data of somebody's own, nothing to do with the toy world; returns name -> path."""
    folder.mkdir(parents=True, exist_ok=True)

    def user(text: str) -> dict[str, str]:
        return {"role": "user", "content": text}

    def answer(text: str) -> dict[str, str]:
        return {"role": "assistant", "content": text}

    def rows(count: int, row: Callable[[int], dict[str, Any]]) -> list[Any]:
        return [row(number) for number in range(count)]

    files = {
        "prompts": rows(8, lambda n: {"id": f"p{n}", "messages": [user(f"ask {n}")]}),
        "selection_prompts": rows(4, lambda n: {"id": f"s{n}", "messages": [user(f"select {n}")]}),
        "heldout_prompts": rows(4, lambda n: {"id": f"h{n}", "messages": [user(f"held out {n}")]}),
        "demonstrations": rows(8, lambda n: {"id": f"d{n}", "messages": [user(f"show {n}"), answer("the sea")]}),
        "pairs": rows(
            40,
            lambda n: {
                "id": f"c{n}",
                "prompt": [user(f"pair {n}")],
                "chosen": [answer("the cat sat")],
                "rejected": [answer("no")],
                "dimension": "helpfulness" if n % 2 else "safety",
                "grade": "better",
                "safety": None if n % 2 else {"bin": "preferred_safe_other_unsafe"},
                "conversation_id": f"pair-{n}",
            },
        ),
    }
    return {name: str(write_lines(folder / f"{name}.jsonl", lines)) for name, lines in files.items()}


def without_manifests(run: Path) -> None:
    """Make a run one of an earlier version, so that what a test spoils in it is found by whoever reads it."""
    for file in run.rglob("manifest.json"):
        file.unlink()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file, the lock and what is known of files aside."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in (".lock", ".hashes.json"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@contextmanager
def put_right_afterwards(folder: Path, kept: Path) -> Iterator[Path]:
    """The folder itself, since a copy would have other paths; what is done to it is undone from a copy in ``kept``."""
    shutil.copytree(folder, kept)
    yield folder
    shutil.rmtree(folder)
    shutil.copytree(kept, folder)


def outcome(work: Callable[[], Any], capsys: Any) -> tuple[int, str]:
    """Exit code and what stood on standard error, as the command line would give them."""
    capsys.readouterr()
    code = guarded(work)
    return code, capsys.readouterr().err
