"""No held-out prompt is among what a run was trained on: every source that reward models learn from counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alignment.errors import UserError
from alignment.run.run_folder import RunFolder
from alignment.settings.read_recipe import load_recipe
from alignment.workflow.training_prompts import check_unseen


def pairs(file: Path, prompt: str) -> Path:
    """Sixty comparisons about one prompt each."""
    rows = [{"prompt": f"{prompt} {number}?", "chosen": "Yes.", "rejected": "No."} for number in range(60)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.mark.parametrize("given", ["data", "mix", "mix of the other model's"])
def test_comparisons_that_a_reward_model_learns_from_are_compared_with_the_heldout_prompts(
    given: str, tmp_path: Path
) -> None:
    seen, other = pairs(tmp_path / "seen.jsonl", "Seen"), pairs(tmp_path / "other.jsonl", "Other")
    heldout, demonstrations = tmp_path / "heldout.jsonl", tmp_path / "demonstrations.jsonl"
    heldout.write_text(
        "".join(
            json.dumps({"id": str(number), "messages": [{"role": "user", "content": f"Seen {number}?"}]}) + "\n"
            for number in range(60)
        ),
        encoding="utf-8",
    )
    demonstrations.write_text(json.dumps({"prompt": "Shown?", "completion": "Yes."}) + "\n", encoding="utf-8")
    sources = {
        "data": [f"reward.helpfulness.data={seen}", "reward.helpfulness.mix=[]"],
        "mix": [
            f"reward.helpfulness.data={other}",
            f"reward.helpfulness.mix=[{{data: {seen}, dimension: safety, share: 0.1}}]",
        ],
        "mix of the other model's": [
            f"reward.helpfulness.data={other}",
            "reward.helpfulness.mix=[{dimension: safety, share: 0.1}]",
            f"reward.safety.data={seen}",
        ],
    }[given]
    files = [f"data.heldout_prompts={heldout}", f"sft.data={demonstrations}"]
    recipe = load_recipe(None, [*files, "reward.models=[helpfulness]", *sources])
    folder = RunFolder(tmp_path / "run")
    assert check_unseen(recipe, folder, 1) == [], "no reward model is trained yet"
    folder.finish(folder.begin("reward", recipe, 1), {}, inputs=[])
    with pytest.raises(UserError, match=r"seen\.jsonl"):
        check_unseen(recipe, folder, 1)
    seen.rename(tmp_path / "gone.jsonl")
    assert str(seen) in check_unseen(recipe, folder, 1)
