"""Every head, adapter or all weights, 32 or 4 bits: trained, saved and loaded in a new process it scores the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from child_process import ChildProcess
from pairs_example import pairs_of, settings
from safetensors.torch import load_file, save_file
from tiny import LORA, as_answers, load_tiny, save_tiny_model, token_rows

from alignment.data.encoded_dialogues import EncodedAnswer
from alignment.errors import UserError
from alignment.models.heads.known_heads import HEADS
from alignment.models.scorers.reward_model import HEAD_FILE, RewardModel
from alignment.reward.reward_training import train_reward_model

pytestmark = pytest.mark.integration

ARGUMENTS: dict[str, dict[str, Any]] = {
    "mlp": {"width": 6},
    "ensemble": {"members": 3, "combine": "cautious"},
    "quantile": {"quantiles": 4, "share": 0.5},
    "objectives": {"objectives": ["helpfulness"], "weights": [0.5]},
}
STEPS = 20
CASES = [
    (head, train, base)
    for head in sorted(HEADS)
    for train, base in (("lora", "none"), ("lora", "nf4"), ("full", "none"))
]
LOADER = """
import json, sys
import torch
from tiny import as_answers, load_tiny, token_rows
from alignment.models.scorers.reward_model import RewardModel
for line in sys.stdin:
    base, quantization, folder = json.loads(line)
    model = RewardModel.load(load_tiny(base, quantization=quantization), "loaded", __import__("pathlib").Path(folder))
    print(json.dumps(model.score(as_answers(token_rows(5, 9, 14, 3, seed=7)), batch_size=4).tolist()), flush=True)
"""


def dialogues() -> list[EncodedAnswer]:
    return as_answers(token_rows(5, 9, 14, 3, seed=7))


class Saved(NamedTuple):
    base: Path
    quantization: str
    folder: Path
    scores: list[float]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base"), hidden=32)


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[ChildProcess]:
    """Another process that loads reward models and scores with them; one for all, since it takes long to start."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    support = Path(__file__).parents[2] / "support"
    command = [sys.executable, "-c", LOADER]
    with ChildProcess(command, limit_seconds=1800, cwd=support, text=True, **pipes) as process:
        yield process


def trained(base: Path, folder: Path, head: str, train: str, quantization: str) -> Saved:
    backbone = load_tiny(base, quantization=quantization)
    torch.manual_seed(0)
    role: str | None = "trained"
    if train == "full":
        backbone, role = backbone.trainable_copy(None), None
    else:
        backbone.add_adapter("trained", LORA)
    model = RewardModel(backbone, role, head_name=head, head_arguments=ARGUMENTS.get(head, {}))
    before = model.score(dialogues(), batch_size=4)
    figures = train_reward_model(
        model,
        backbone.tokenizer,
        pairs_of(),
        settings(epochs=STEPS, learning_rate=3e-3),
        seed=0,
        trainer={},
        on_step=lambda *unused: None,
    )
    assert figures["steps"] == STEPS
    model.offset = 0.25
    scores = model.score(dialogues(), batch_size=4)
    assert (scores - before + 0.25).abs().min() > 1e-3
    model.save(folder, calibration={})
    return Saved(base, quantization, folder, scores.tolist())


@pytest.mark.parametrize(("head", "train", "quantization"), CASES)
def test_the_same_scores_in_a_new_process_and_never_a_fresh_head(
    head: str, train: str, quantization: str, base: Path, tmp_path: Path, elsewhere: ChildProcess
) -> None:
    saved = trained(base, tmp_path / "model", head, train, quantization)
    assert elsewhere.stdin is not None and elsewhere.stdout is not None
    elsewhere.stdin.write(json.dumps([str(base), quantization, str(saved.folder)]) + "\n")
    elsewhere.stdin.flush()
    found = json.loads(elsewhere.stdout.readline())
    assert found == pytest.approx(saved.scores, abs=1e-2 if quantization == "nf4" else 1e-5)
    state = load_file(str(saved.folder / HEAD_FILE))
    for missing in state:
        rest = {key: value for key, value in state.items() if key != missing} or {"other": torch.zeros(1)}
        save_file(rest, str(saved.folder / HEAD_FILE))
        with pytest.raises(UserError, match=f"does not hold a {head} head"):
            RewardModel.load(load_tiny(base), "incomplete", saved.folder)


def test_all_weights_of_a_4_bit_base_cannot_be_trained(base: Path) -> None:
    with pytest.raises(UserError, match=r"reward\.train=full cannot train 4-bit weights; use reward\.train=lora"):
        load_tiny(base, quantization="nf4").trainable_copy(
            None, setting="reward.train=full", instead="reward.train=lora"
        )


def test_training_all_weights_changes_them_and_leaves_the_shared_base_alone(base: Path, tmp_path: Path) -> None:
    shared = load_tiny(base)
    before = {name: value.clone() for name, value in shared.base.state_dict().items()}
    model = RewardModel(shared.trainable_copy(None), None, head_name="linear", head_arguments={})
    train_reward_model(
        model,
        shared.tokenizer,
        pairs_of(),
        settings(epochs=2),
        seed=0,
        trainer={},
        on_step=lambda *unused: None,
    )
    assert all(torch.equal(value, before[name]) for name, value in shared.base.state_dict().items())
    own = model.backbone.base.state_dict()
    moved = [name for name in before if not torch.equal(own[name], before[name])]
    assert {name for name in before if "proj" in name} <= set(moved)


def test_a_head_of_another_width_is_refused(base: Path, tmp_path: Path) -> None:
    saved = trained(base, tmp_path / "model", "linear", "lora", "none")
    save_file({"score.weight": torch.zeros(1, 31)}, str(saved.folder / HEAD_FILE))
    with pytest.raises(UserError, match="size mismatch"):
        RewardModel.load(load_tiny(base), "other", saved.folder)
