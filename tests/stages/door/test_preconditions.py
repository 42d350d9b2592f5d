"""Which of a stage's folders are still to be made."""

from __future__ import annotations

from pathlib import Path

import pytest
from stage_fixtures import own_model

from alignment.errors import UserError
from alignment.run.run_folder import RunFolder
from alignment.settings.read_recipe import load_recipe
from stages.door.preconditions import check_sft, unfinished_methods


def test_both_methods_go_on_after_the_one_that_is_finished_and_not_after_both(tmp_path: Path) -> None:
    recipe, folder = load_recipe(None, [f"run_dir={tmp_path}", "ppo.method=both"]), RunFolder(tmp_path)
    assert unfinished_methods(recipe, folder, 1) == ["rejection", "ppo"]
    folder.finish(folder.begin("rejection", recipe, 1), {}, inputs=[])
    assert unfinished_methods(recipe, folder, 1) == ["ppo"]
    with pytest.raises(UserError, match=r"rejection is finished\. Pass overwrite=true"):
        unfinished_methods(recipe, folder, 1, method="rejection")
    folder.finish(folder.begin("ppo", recipe, 1), {}, inputs=[])
    with pytest.raises(UserError, match=r"is finished\. Pass overwrite=true"):
        unfinished_methods(recipe, folder, 1)
    again = recipe.model_copy(update={"overwrite": True})
    assert unfinished_methods(again, folder, 1) == ["rejection", "ppo"]


def test_toy_demonstrations_are_not_taken_in_a_run_with_own_data_unless_asked_for(tmp_path: Path) -> None:
    model = own_model(tmp_path / "model")
    own = (f"run_dir={tmp_path}", f"model.name_or_path={model}", f"reward.safety.data={tmp_path / 'pairs.jsonl'}")
    with pytest.raises(UserError, match=r"sft\.data=data/toy/demonstrations\.jsonl"):
        check_sft(load_recipe(None, own))
    check_sft(load_recipe(None, [*own, "sft.data=data/toy/demonstrations.jsonl"]))
