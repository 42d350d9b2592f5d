"""Settings that the libraries read when they are imported, markers by fixture, and tiny models."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from alignment.models.backbone import Backbone

os.environ.update(
    {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "MPLBACKEND": "Agg",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_OFFLINE": "1",
    }
)

if "PYTEST_XDIST_WORKER" in os.environ:  # one of several test processes, which share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Those that others import come first, so that pytest can explain their asserts, too.
pytest_plugins = ("postgres", "browser", "annotation_fixtures", "annotation_server", "annotation_page")

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama, pad is eos": {"pad_is_eos": True},
    "qwen2": {"family": "qwen2"},
    "qwen3": {"family": "qwen3"},
}


MARKER_OF_FIXTURE = {"chromium": "browser", "postgres": "postgres", "postgres_database": "postgres"}
LONG = ("integration", "browser")
COLLECTED = pytest.StashKey[list[pytest.Item]]()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests that need a browser or PostgreSQL, before tests are selected by their markers."""
    for item in items:
        for name in MARKER_OF_FIXTURE.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(MARKER_OF_FIXTURE[name])
    config.stash[COLLECTED] = list(items)
    # Each file is one worker's: those with the most tests that take seconds first, so that none is left for the end.
    long = Counter(item.path for item in items if any(item.get_closest_marker(name) for name in LONG))
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (-long[item.path], -tests[item.path], str(item.path)))


def pytest_collection_finish() -> None:
    """Leave what was imported out of garbage collections: each training asks for one, which took half a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def collected(pytestconfig: pytest.Config) -> list[pytest.Item]:
    """Every test that was found, those that are not selected by their markers, too."""
    return pytestconfig.stash[COLLECTED]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the folder of a tiny model by its name in ``FAMILIES``; each is made once."""
    from tiny import save_tiny_model

    @cache
    def make(name: str) -> Path:
        return save_tiny_model(tmp_path_factory.mktemp("tiny"), **FAMILIES[name])

    return make


@pytest.fixture
def backbone(tiny_folder: Callable[[str], Path]) -> Backbone:
    """A fresh backbone on a tiny random Llama in float32."""
    from tiny import load_tiny

    return load_tiny(tiny_folder("llama"))


@pytest.fixture(params=list(FAMILIES))
def any_backbone(request: pytest.FixtureRequest, tiny_folder: Callable[[str], Path]) -> Backbone:
    """The same for every family, and for a tokenizer that pads with its stop token."""
    from tiny import load_tiny

    return load_tiny(tiny_folder(request.param))


@pytest.fixture
def blank_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages get empty plots with their labels, for tests of words and figures: drawing takes four fifths of a page."""
    from matplotlib.figure import Figure

    monkeypatch.setattr(Figure, "savefig", lambda figure, buffer, **options: buffer.write("<svg></svg>"))


# -- reduced runs of the toy recipe, made once: a test that changes one copies it -------------------------------------


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A few rows of every toy file; name -> path."""
    from stage_fixtures import reduced_data

    return reduced_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def sft_run(files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder whose base model and SFT are finished."""
    from stage_fixtures import reduced_recipe

    from stages.base import write_base_model
    from stages.sft import finetune

    run = tmp_path_factory.mktemp("runs") / "sft"
    for stage in (write_base_model, finetune):
        stage.run(reduced_recipe(files, run))
    return run


@pytest.fixture(scope="session")
def rewarded_run(files: dict[str, str], sft_run: Path) -> Path:
    """A run folder that is finished up to the reward models."""
    from stage_fixtures import reduced_recipe

    from stages.annotate import collect
    from stages.reward import train_reward_models

    run = sft_run.with_name("rewarded")
    shutil.copytree(sft_run, run)
    for stage in (collect, train_reward_models):
        stage.run(reduced_recipe(files, run))
    return run


@pytest.fixture(scope="session")
def ppo_run(files: dict[str, str], rewarded_run: Path) -> Path:
    """A run folder that is finished up to PPO."""
    from stage_fixtures import reduced_recipe

    from stages.ppo import train_policy

    run = rewarded_run.with_name("ppo")
    shutil.copytree(rewarded_run, run)
    train_policy.run(reduced_recipe(files, run, "ppo.method=ppo"))
    return run


@pytest.fixture
def without_plugins() -> Iterator[None]:
    """Takes away again what plugins have added."""
    from alignment.workflow.plugins import tables

    before, modules = {name: dict(table) for name, table in tables().items()}, set(sys.modules)
    yield
    for name, table in tables().items():
        table.clear()
        table.update(before[name])
    for module in set(sys.modules) - modules:
        if module.startswith("tandem_plugin"):
            del sys.modules[module]
