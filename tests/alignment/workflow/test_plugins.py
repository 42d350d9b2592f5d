"""Heads, losses and gates from a file outside the package: found by name, trained, saved, loaded in a new process."""

from __future__ import annotations

import os
import py_compile
import re
import sys
from pathlib import Path

import child_process
import pytest
import torch
from stage_fixtures import reduced_data, reduced_recipe

from alignment.errors import UserError
from alignment.files import read_json
from alignment.models.heads.known_heads import HEADS, build_head
from alignment.reward.gate import gate_named
from alignment.reward.losses import preference_loss_named
from alignment.workflow.plugins import load_plugins, tables
from stages.annotate import collect as annotate
from stages.base import write_base_model as base
from stages.door.command_line import open_page, parser_for, recipe_from
from stages.ppo import train_policy as ppo
from stages.reward import train_reward_models
from stages.sft import finetune

ROOT = Path(__file__).parents[3]
LOSS_AND_GATE = """
import torch
from alignment.reward.gate import GATES, GatedScores
from alignment.reward.losses import LOSSES

def hinge(log_odds, strength):
    return torch.relu(1 - log_odds)

def worse_of_both(helpfulness, safety, is_safety, *, threshold_probability):
    return GatedScores(torch.minimum(helpfulness, safety), safety < helpfulness)

LOSSES["hinge"] = hinge
GATES["worse"] = worse_of_both
"""


pytestmark = pytest.mark.usefixtures("without_plugins")


@pytest.fixture
def my_heads(tmp_path: Path) -> Path:
    """The head that the README shows, in a file of its own."""
    file = tmp_path / "my_heads.py"
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    (block,) = [block for block in blocks if "HEADS[" in block]
    file.write_text(block, encoding="utf-8")
    return file


@pytest.fixture
def my_rules(tmp_path: Path) -> Path:
    file = tmp_path / "my_rules.py"
    file.write_text(LOSS_AND_GATE, encoding="utf-8")
    return file


def test_the_readmes_head_has_at_most_ten_lines_and_scores(my_heads: Path) -> None:
    lines = [line for line in my_heads.read_text().splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) <= 10
    before = set(HEADS)
    load_plugins([str(my_heads)])
    (name,) = set(HEADS) - before
    scores = build_head(name, 8)(torch.randn(3, 5, 8), torch.tensor([4, 0, 2]))
    assert scores.shape == (3,) and scores.dtype == torch.float32


def test_losses_and_gates(my_rules: Path) -> None:
    load_plugins([str(my_rules)])
    assert preference_loss_named("hinge")(torch.tensor([0.25, 3.0]), torch.ones(2)).tolist() == [0.75, 0.0]
    gated = gate_named("worse")(
        torch.tensor([1.0, 2.0]), torch.tensor([3.0, -1.0]), torch.zeros(2).bool(), threshold_probability=0.15
    )
    assert (gated.scores.tolist(), gated.routed_to_safety.tolist()) == ([1.0, -1.0], [False, True])


def test_a_file_is_run_once(tmp_path: Path) -> None:
    file = tmp_path / "counted.py"
    file.write_text(
        "from pathlib import Path\nfrom alignment.reward.losses import LOSSES\n"
        "LOSSES['x'] = lambda log_odds, strength: -log_odds\n"
        f"with open({str(tmp_path / 'runs')!r}, 'a') as f: f.write('x')\n"
    )
    load_plugins([str(file)])
    load_plugins([str(file)])
    assert (tmp_path / "runs").read_text() == "x"


def test_a_file_that_changed_since_it_was_run_is_named(tmp_path: Path) -> None:
    file = tmp_path / "changed.py"
    file.write_text("from alignment.reward.losses import LOSSES\nLOSSES['one'] = 1\n")
    load_plugins([str(file)])
    file.write_text("from alignment.reward.losses import LOSSES\nLOSSES['two'] = 1\n")
    with pytest.raises(UserError, match=r"changed\.py has changed since it was run"):
        load_plugins([str(file)])


def test_a_compiled_copy_is_not_run_in_its_place(tmp_path: Path) -> None:
    """Python takes one for a file's whose size and second are the same."""
    file = tmp_path / "compiled.py"
    file.write_text("from alignment.reward.losses import LOSSES\nLOSSES['before'] = 1\n")
    py_compile.compile(str(file))
    status = file.stat()
    file.write_text("from alignment.reward.losses import LOSSES\nLOSSES['behind'] = 1\n")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    load_plugins([str(file)])
    assert "behind" in tables()["LOSSES"] and "before" not in tables()["LOSSES"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("import torch\nx = 1 / 0\n", r"ZeroDivisionError: division by zero \(line 2\)"),
        ("def broken(:\n", "SyntaxError"),
        ("x = 1\n", "adds nothing to HEADS, LOSSES, GATES"),
        (
            "from alignment.models.heads import HEADS, RewardHead\nHEADS['linear'] = RewardHead\n",
            r"replaces HEADS\['linear'\]",
        ),
    ],
)
def test_a_bad_file_is_one_error_and_leaves_nothing_behind(text: str | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    if text is not None:
        file.write_text(text)
    before = {name: dict(table) for name, table in tables().items()}
    with pytest.raises(UserError, match=message):
        load_plugins([str(file)])
    assert {name: dict(table) for name, table in tables().items()} == before


def test_the_command_line_loads_what_the_recipe_names(my_rules: Path) -> None:
    recipe = recipe_from(parser_for("ppo").parse_args([f"plugins=[{my_rules}]", "ppo.gate=worse"]))
    open_page("stages.ppo.train_policy", recipe)
    assert gate_named("worse")


def test_the_command_line_misses_a_file_before_the_stage_is_imported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"plugins: no such file: .*none\.py"):
        recipe_from(parser_for("ppo").parse_args([f"plugins=[{tmp_path / 'none.py'}]"]))


@pytest.mark.integration
def test_a_whole_run_with_a_head_a_loss_and_a_gate_of_ones_own(my_heads: Path, my_rules: Path, tmp_path: Path) -> None:
    load_plugins([str(my_heads), str(my_rules)])
    (name,) = set(HEADS) - {"linear", "mlp", "likelihood", "attention", "ensemble", "quantile", "objectives"}
    settings = [
        f"plugins=[{my_heads},{my_rules}]",
        f"reward.head.name={name}",
        "reward.helpfulness.loss=hinge",
        "ppo.gate=worse",
        "ppo.method=ppo",
    ]
    recipe = reduced_recipe(reduced_data(tmp_path), tmp_path / "run", *settings)
    for stage in (base, finetune, annotate, train_reward_models, ppo):
        stage.run(recipe)
    result = read_json(tmp_path / "run" / "round-1" / "ppo" / "result.json")
    # Where the gate takes the lesser of two scores, the mean cannot be above either's.
    assert result["objective/score"] <= min(result["objective/helpfulness"], result["objective/safety"])
    folder = tmp_path / "run" / "round-1" / "reward" / "helpfulness"
    load = (
        "import sys; from pathlib import Path; from alignment.errors import UserError\n"
        "from alignment.workflow.plugins import load_plugins\n"
        "from alignment.models.heads.known_heads import build_head\n"
        "load_plugins(sys.argv[2:]); build_head(sys.argv[1], 8); print('known')"
    )
    assert read_json(folder / "reward_model.json")["head"]["name"] == name
    known = child_process.run([sys.executable, "-c", load, name, str(my_heads)], cwd=ROOT)
    assert known.stdout == "known\n"
    unknown = child_process.run([sys.executable, "-c", load, name], cwd=ROOT)
    assert "plugins=[...]" in unknown.stderr
