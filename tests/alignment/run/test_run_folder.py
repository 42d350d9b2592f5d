"""The run folder: what counts as finished, the lock, the ledger, and files that are whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import child_process
import pytest
import torch

from alignment.data.jsonl_and_raw_rows import write_jsonl
from alignment.errors import UserError
from alignment.files import content_hash, read_json, write_json
from alignment.run.run_folder import RunFolder
from alignment.run.stage_records import CHECKPOINTS, MEASURED_ENVIRONMENT, environment
from alignment.settings.read_recipe import load_recipe
from alignment.settings.recipe import Recipe


def recipe(*overrides: str) -> Recipe:
    return load_recipe(None, overrides)


def finish(folder: RunFolder, name: str, number: int | None = None, *, settings: Recipe | None = None) -> None:
    stage = folder.begin(name, settings or recipe(), number)
    folder.finish(stage, {}, inputs=[])


def test_a_stage_is_finished_when_its_result_is_there(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    stage = folder.begin("sft", recipe())
    assert not folder.finished("sft")
    with pytest.raises(UserError, match=r"python -m stages\.sft"):
        folder.require("sft")
    result = folder.finish(stage, {"steps": 3}, inputs=[])
    assert folder.finished("sft")
    assert folder.require("sft") == tmp_path / "sft"
    assert folder.result("sft") == result
    assert result["steps"] == 3
    assert result["seconds"] >= 0


def test_a_stage_folder_says_how_it_was_made(tmp_path: Path) -> None:
    stage = RunFolder(tmp_path).begin("ppo", recipe("seed=7"), 2)
    assert stage.folder == tmp_path / "round-2" / "ppo"
    assert load_recipe(str(stage.folder / "config.yaml")).model_dump() == recipe("seed=7").model_dump()
    environment = read_json(stage.folder / "env.json")
    assert environment["seed"] == 7
    assert environment["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    stage.log({"update": 1, "objective/kl": 0.5})
    stage.log({"update": 2, "objective/kl": 0.25})
    lines = (stage.folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["objective/kl"] for line in lines] == [0.5, 0.25]


def test_the_environment_is_known_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_git(*unused: Any, **unused_by_name: Any) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", no_git)
    assert environment(0)["commit"] is None


def test_an_interrupted_stage_starts_again_from_a_clean_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (folder.begin("sft", recipe()).folder / "half.safetensors").write_text("half")
    folder.begin("sft", recipe())
    assert sorted(file.name for file in (tmp_path / "sft").iterdir()) == ["config.yaml", "env.json"]


def test_a_finished_stage_is_not_overwritten_unless_asked(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    finish(folder, "sft")
    (tmp_path / "sft" / "weights").write_text("kept")
    with pytest.raises(UserError, match="overwrite=true"):
        folder.begin("sft", recipe())
    assert (tmp_path / "sft" / "weights").read_text() == "kept"
    assert not (folder.begin("sft", recipe("overwrite=true")).folder / "weights").exists()
    assert (tmp_path / "sft" / "weights").read_text() == "kept", "until the new one is finished"


def test_the_same_stage_draws_the_same_numbers_and_others_draw_others(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)

    def draw(name: str, number: int | None, seed: int) -> list[float]:
        folder.begin(name, recipe(f"seed={seed}"), number)
        return torch.rand(4).tolist()

    first = draw("ppo", 1, 0)
    assert draw("ppo", 1, 0) == first
    assert first not in (draw("ppo", 2, 0), draw("reward", 1, 0), draw("ppo", 1, 1))


def test_the_ledger_gets_one_line_a_finished_stage_with_content_hashes(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text("one\n")
    folder = RunFolder(tmp_path / "run")
    for text in ("one\n", "two\n"):
        data.write_text(text)
        stage = folder.begin("sft", recipe("overwrite=true"))
        (stage.folder / "model.safetensors").write_text("weights")
        folder.finish(stage, {}, inputs=[data])
    lines = [json.loads(line) for line in (tmp_path / "run" / "ledger.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines] == ["sft", "sft"]
    hashes = [line["inputs"][str(data)] for line in lines]
    assert hashes[0] == hashlib.sha256(b"data.jsonl" + b"one\n").hexdigest()[:16]
    assert hashes[0] != hashes[1]
    assert all(line["output"] and line["seconds"] >= 0 and line["finished_at"].endswith("Z") for line in lines)


def test_a_folders_hash_follows_its_weights_and_records_only(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("weights")
    before = content_hash(tmp_path)
    (tmp_path / CHECKPOINTS).mkdir()
    for name in ("notes.txt", "env.json", MEASURED_ENVIRONMENT, "metrics.jsonl", f"{CHECKPOINTS}/state.safetensors"):
        (tmp_path / name).write_text("not hashed")
    assert content_hash(tmp_path) == before
    (tmp_path / "model.safetensors").write_text("other weights")
    assert content_hash(tmp_path) != before


def test_a_run_folder_that_cannot_be_made_is_a_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="run_dir"), RunFolder(tmp_path / "file" / "run").lock():
        pytest.fail("a folder inside a file")


def test_changed_settings_are_named_where_they_matter(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    finish(folder, "sft")
    finish(folder, "ppo", 1)
    assert folder.kept("sft", None, recipe())
    assert folder.kept("sft", None, recipe("ppo.updates=1"))
    assert not folder.kept("sft", None, recipe("overwrite=true", "sft.epochs=9"))
    assert not folder.kept("base", None, recipe("sft.epochs=9"))
    with pytest.raises(UserError, match=r"other settings: seed=0, now 4; sft\.epochs=2\.0, now 9\.0\. "):
        folder.kept("sft", None, recipe("sft.epochs=9", "seed=4"))
    with pytest.raises(UserError, match=r"ppo\.sampling\.temperature"):
        folder.kept("ppo", 1, recipe("ppo.sampling.temperature=0.5"))
    assert folder.kept("ppo", 1, recipe("ppo.method=ppo"))


def test_settings_of_other_sections_count_where_a_stage_reads_them(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    finish(folder, "rejection", 1)
    assert folder.kept("rejection", 1, recipe("sft.epochs=9", "ppo.updates=1"))
    with pytest.raises(
        UserError, match=r"settings: ppo\.safety_threshold=0\.15, now 0\.2; sft\.packing=false, now true\. "
    ):
        folder.kept("rejection", 1, recipe("ppo.safety_threshold=0.2", "sft.packing=true"))


def test_only_stages_before_the_one_that_is_made_have_to_agree(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    finish(folder, "sft")
    finish(folder, "rejection", 1)
    other = recipe("sft.packing=true")
    folder.check_settings(other, ["sft"])
    for making in (["round-1/ppo"], ["round-1/eval"], ["round-2/annotate"], ["sft", "round-1/ppo"]):
        with pytest.raises(UserError, match=r"was made with other settings: sft\.packing=false, now true"):
            folder.check_settings(other, making)
    folder.check_settings(recipe("ppo.safety_threshold=0.3"), ["round-1/reward"])
    with pytest.raises(UserError, match=r"rejection was made with other settings: ppo\.safety_threshold"):
        folder.check_settings(recipe("ppo.safety_threshold=0.3"), ["round-1/ppo"])
    # Several seeds, or precisions, of one stage may go on from the same stages before it.
    folder.check_settings(recipe("seed=3", "model.lora.r=2", "model.dtype=bfloat16"), ["round-1/ppo"])


def test_the_hint_for_a_later_round_is_the_pipeline(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(UserError, match=r"Make it first: python -m stages\.reward run_dir"):
        folder.require("reward", 1)
    with pytest.raises(UserError, match=r"Make it first: python -m stages\.pipeline run_dir=.* rounds=3"):
        folder.require("reward", 3)


def test_comparisons_that_were_taken_from_a_file_do_not_depend_on_prompts(tmp_path: Path) -> None:
    folder, source = RunFolder(tmp_path), ["annotate.source=dataset", "annotate.data=mine.jsonl"]
    finish(folder, "annotate", 1, settings=recipe(*source))
    folder.check_settings(recipe(*source, "data.prompts=other.jsonl"), ["round-1/ppo"])
    with pytest.raises(UserError, match=r"annotate\.dimension"):
        folder.check_settings(recipe(*source, "annotate.dimension=safety"), ["round-1/ppo"])


def test_an_evaluation_with_other_prompts_leaves_the_runs_own_on_record(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    finish(folder, "annotate", 1)
    other = recipe("data.heldout_prompts=other.jsonl", "evaluate.answers_per_prompt=7")
    folder.check_settings(other, ["round-1/eval"])
    folder.begin("eval", other, 1)
    kept = load_recipe(str(tmp_path / "recipe.yaml"))
    assert kept.data.heldout_prompts == recipe().data.heldout_prompts
    assert kept.evaluate.answers_per_prompt == 7
    assert load_recipe(str(tmp_path / "round-1" / "eval" / "config.yaml")).data.heldout_prompts == "other.jsonl"


class TestStagesMadeFromAnEarlierInput:
    """A stage that was made again leaves those made from it behind: they are not used, and not thrown away."""

    def made(self, folder: RunFolder, name: str, round_number: int | None, content: str) -> None:
        stage = folder.begin(name, recipe("overwrite=true"), round_number)
        (stage.folder / "model.safetensors").write_text(content)
        folder.finish(stage, {}, inputs=[])

    def chain(self, tmp_path: Path) -> RunFolder:
        folder = RunFolder(tmp_path)
        self.made(folder, "sft", None, "sft")
        for name in ("annotate", "reward", "rejection", "ppo"):
            self.made(folder, name, 1, name)
        return folder

    def test_are_refused_and_kept(self, tmp_path: Path) -> None:
        folder = self.chain(tmp_path)
        assert folder.require("ppo", 1) and folder.kept("ppo", 1, recipe())
        self.made(folder, "reward", 1, "another reward model")
        assert folder.changed_inputs("annotate", 1) == []
        assert folder.changed_inputs("ppo", 1) == ["round-1/reward"]
        with pytest.raises(
            UserError, match=r"ppo was made before the present round-1/reward.*stages\.ppo .*overwrite=true"
        ):
            folder.require("ppo", 1)
        with pytest.raises(UserError, match="before the present round-1/reward"):
            folder.kept("ppo", 1, recipe())
        assert (folder.stage("ppo", 1) / "model.safetensors").read_text() == "ppo"
        self.made(folder, "rejection", 1, "rejection")
        self.made(folder, "ppo", 1, "ppo")
        assert folder.require("ppo", 1)

    def test_the_same_result_again_leaves_them_valid(self, tmp_path: Path) -> None:
        folder = self.chain(tmp_path)
        self.made(folder, "reward", 1, "reward")
        assert folder.changed_inputs("ppo", 1) == []

    def test_an_input_that_was_not_there_counts(self, tmp_path: Path) -> None:
        folder = RunFolder(tmp_path)
        for name, number in (("sft", None), ("annotate", 1), ("reward", 1), ("ppo", 1), ("eval", 1)):
            self.made(folder, name, number, name)
        self.made(folder, "rejection", 1, "made after the policy that did without it")
        assert folder.changed_inputs("ppo", 1) == folder.changed_inputs("eval", 1) == ["round-1/rejection"]

    def test_the_report_reads_the_comparisons_too(self, tmp_path: Path) -> None:
        folder = self.chain(tmp_path)
        self.made(folder, "eval", 1, "eval")
        assert folder.changed_inputs("eval", 1) == []
        self.made(folder, "annotate", 1, "other held-out comparisons")
        assert folder.changed_inputs("eval", 1) == ["round-1/annotate"]

    def test_comparisons_collected_later_do_not_touch_models_of_a_file(self, tmp_path: Path) -> None:
        folder = RunFolder(tmp_path)
        self.made(folder, "sft", None, "sft")
        self.made(folder, "reward", 1, "from a file")
        self.made(folder, "annotate", 1, "collected later")
        assert folder.changed_inputs("reward", 1) == []

    def test_an_edited_data_file_counts(self, tmp_path: Path) -> None:
        data = tmp_path / "dialogues.jsonl"
        data.write_text("one\n")
        folder = RunFolder(tmp_path / "run")
        stage = folder.begin("sft", recipe())
        folder.finish(stage, {}, inputs=[data])
        assert folder.kept("sft", None, recipe())
        data.write_text("two\n")
        with pytest.raises(UserError, match=r"before the present .*dialogues\.jsonl"):
            folder.kept("sft", None, recipe())

    def test_a_round_follows_the_one_before(self, tmp_path: Path) -> None:
        folder = self.chain(tmp_path)
        self.made(folder, "annotate", 2, "second")
        self.made(folder, "ppo", 1, "another policy")
        assert folder.changed_inputs("annotate", 2) == ["round-1/ppo"]


def test_the_newest_policy_is_recorded_without_links(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.policy["folder"] == "sft"
    folder.set_policy("ppo", 3)
    assert read_json(tmp_path / "policy.json") == {"stage": "ppo", "round": 3, "folder": "round-3/ppo"}
    finish(folder, "ppo", 1)
    finish(folder, "ppo", 10)
    assert folder.latest_round("ppo") == 10
    assert folder.latest_round("reward") is None


@pytest.mark.parametrize("write", ["json", "jsonl"])
def test_a_file_is_whole_or_as_it_was(write: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("before")

    def killed(*unused: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_json(file, {"a": 1}) if write == "json" else write_jsonl(file, [{"a": 1}])
    assert file.read_text() == "before"


def test_values_that_json_cannot_hold_leave_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"a": object()})
    assert read_json(tmp_path / "x.json") == {"a": 1}


def test_a_damaged_or_missing_json_file_names_itself(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.json is missing"):
        read_json(tmp_path / "gone.json")
    (tmp_path / "x.json").write_text('{"a": ')
    with pytest.raises(UserError, match=r"x\.json: not valid JSON"):
        read_json(tmp_path / "x.json")


@pytest.mark.integration
def test_importing_the_stages_needs_nothing_that_windows_lacks() -> None:
    program = (
        "import sys, importlib.abc\n"
        "class Absent(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in {'fcntl', 'resource', 'termios', 'pwd', 'grp'} and asked_by_us():\n"
        "            raise ModuleNotFoundError(name)\n"
        "def asked_by_us():\n"
        "    frame = sys._getframe()\n"
        "    while frame:\n"
        "        if frame.f_globals.get('__name__', '').split('.')[0] in {'alignment', 'stages'}: return True\n"
        "        if not frame.f_globals.get('__name__', '').startswith(('importlib', '__main__')): return False\n"
        "        frame = frame.f_back\n"
        "    return False\n"
        "for name in ('fcntl', 'resource', 'termios', 'pwd', 'grp'): sys.modules.pop(name, None)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "import stages.pipeline, stages.chat\n"
    )
    done = child_process.run([sys.executable, "-c", program])
    assert done.returncode == 0, done.stderr


def test_a_file_that_changes_while_a_stage_is_made_is_told_and_is_not_taken_for_what_was_read(tmp_path: Path) -> None:
    data = tmp_path / "demonstrations.jsonl"
    data.write_text("one\n")
    settings, folder = recipe(f"sft.data={data}"), RunFolder(tmp_path / "run")
    said = r"sft is finished, but .*demonstrations\.jsonl changed while it was made.*stages\.sft .*overwrite=true"
    with pytest.raises(UserError, match=said), folder.lock():
        stage = folder.begin("sft", settings)
        data.write_text("another\n")
        folder.finish(stage, {}, inputs=[data])
    assert folder.result("sft")["files"] == {str(data): "changed while it was read"}
    with pytest.raises(UserError, match=r"made before the present .*demonstrations\.jsonl"):
        folder.kept("sft", None, settings)
    data.write_text("one\n")
    assert folder.kept("sft", None, settings)
    with folder.lock():
        pass


def test_a_relative_path_that_leads_to_another_file_is_another_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (("here", "one\n"), ("there", "another\n"), ("copied", "one\n"), ("empty", "")):
        (tmp_path / name).mkdir()
        if text:
            (tmp_path / name / "demonstrations.jsonl").write_text(text)
    settings, folder = recipe("sft.data=demonstrations.jsonl"), RunFolder(tmp_path / "run")
    monkeypatch.chdir(tmp_path / "here")
    folder.finish(folder.begin("sft", settings), {}, inputs=[Path("demonstrations.jsonl")])
    for name in ("here", "copied", "empty"):
        monkeypatch.chdir(tmp_path / name)
        assert folder.kept("sft", None, settings), name
    monkeypatch.chdir(tmp_path / "there")
    file = "demonstrations.jsonl"
    with pytest.raises(UserError, match=rf"sft\.data={tmp_path}/here/{file}, now {tmp_path}/there/{file}"):
        folder.kept("sft", None, settings)
    assert folder.kept("sft", None, recipe(f"sft.data={tmp_path / 'copied' / file}")), "which is named, and is read"


def test_two_files_of_one_name_are_not_taken_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("helpful", "harmless"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.jsonl").write_text(name)
    monkeypatch.chdir(tmp_path / "helpful")
    names = ("train.jsonl", "../harmless/train.jsonl")
    settings = [f"reward.{model}.data={name}" for model, name in zip(("helpfulness", "safety"), names, strict=True)]
    folder = RunFolder(tmp_path / "run")
    folder.finish(folder.begin("reward", recipe(*settings), 1), {}, inputs=[Path(name) for name in names])
    assert folder.kept("reward", 1, recipe(*settings))
    with pytest.raises(UserError, match=r"helpfulness\.data=train\.jsonl, now \.\./harmless/train\.jsonl"):
        folder.kept("reward", 1, recipe(f"reward.helpfulness.data={names[1]}", settings[1]))
    monkeypatch.chdir(tmp_path / "harmless")
    with pytest.raises(UserError, match=r"helpfulness\.data=.*helpful/train\.jsonl, now .*harmless/train\.jsonl"):
        folder.kept("reward", 1, recipe(*settings))


def test_a_file_that_is_named_by_a_link_is_the_file(tmp_path: Path) -> None:
    (tmp_path / "v3.jsonl").write_text("one\n")
    (tmp_path / "latest.jsonl").symlink_to("v3.jsonl")
    settings, folder = recipe(f"sft.data={tmp_path / 'latest.jsonl'}"), RunFolder(tmp_path / "run")
    with folder.lock():
        stage = folder.begin("sft", settings)
        folder.finish(stage, {}, inputs=[tmp_path / "v3.jsonl", tmp_path / "latest.jsonl"])
    assert folder.kept("sft", None, settings)
    (tmp_path / "v3.jsonl").write_text("another\n")
    with pytest.raises(UserError, match=r"made before the present .*v3\.jsonl"):
        folder.kept("sft", None, settings)


def test_what_a_file_held_when_the_stage_looked_at_it_counts_and_a_base_model_is_one(tmp_path: Path) -> None:
    """Stages read their data, and load models, before they begin."""
    data, base = tmp_path / "demonstrations.jsonl", tmp_path / "base"
    base.mkdir()
    for edited in (data, base / "model.safetensors"):
        data.write_text("one\n")
        (base / "model.safetensors").write_text("weights")
        settings = recipe(f"sft.data={data}", f"model.name_or_path={base}")
        folder = RunFolder(tmp_path / f"run-{edited.stem}")
        for begin in (folder.begin, partial(folder.begin_or_resume, round_number=1, inputs=[data, base])):
            folder.look("sft", settings)
            edited.write_text("another\n")
            changed = f"{'base' if edited != data else 'demonstrations'}.* changed while sft read"
            with pytest.raises(UserError, match=changed), folder.lock():
                begin("sft", settings)
            edited.write_text("one\n" if edited == data else "weights")
        assert not (folder.root / "sft").exists()


@pytest.mark.parametrize("by_link", [False, True])
def test_a_run_in_the_folder_of_its_base_model_is_no_part_of_that(tmp_path: Path, by_link: bool) -> None:
    """``cd my-model; python -m stages.sft model.name_or_path=. run_dir=runs/mine``"""
    base = tmp_path / "model"
    base.mkdir()
    weights = base / "model.safetensors"
    weights.write_text("weights")
    if by_link:
        (tmp_path / "link").symlink_to(base)
        base = tmp_path / "link"
    settings, folder = recipe(f"model.name_or_path={base}"), RunFolder(base / "runs" / "mine")
    with folder.lock():
        folder.look("sft", settings)
        finish(folder, "annotate", 1)
        folder.finish(folder.begin("sft", settings), {}, inputs=[base])
    manifest = folder.manifests.of("sft")
    assert manifest is not None
    assert manifest["inputs"] == {str(base.resolve()): {"model.safetensors": file_hash(weights)}}
    finish(folder, "reward", 1)
    assert folder.kept("sft", None, settings)
    weights.write_text("other weights")
    with pytest.raises(UserError, match=r"made before the present .*model"):
        folder.kept("sft", None, settings)


def file_hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_link_that_is_turned_to_another_file_is_recorded_as_the_file_that_was_read(tmp_path: Path) -> None:
    for name in ("v3", "v4"):
        (tmp_path / f"{name}.jsonl").write_text(name)
    latest = tmp_path / "latest.jsonl"
    latest.symlink_to("v3.jsonl")
    settings, folder = recipe(f"sft.data={latest}"), RunFolder(tmp_path / "run")
    with pytest.raises(UserError, match=r"sft is finished, but .*latest\.jsonl changed while"), folder.lock():
        stage = folder.begin("sft", settings)
        latest.unlink()
        latest.symlink_to("v4.jsonl")
        folder.finish(stage, {}, inputs=[latest])
    manifest = folder.manifests.of("sft")
    assert manifest is not None
    assert {*manifest["inputs"]} == {str(tmp_path.resolve() / "v3.jsonl")}


def test_what_is_looked_at_counts_where_a_stage_goes_on_too(tmp_path: Path) -> None:
    """What it was begun with is on record, and what it reads now may be another already."""
    data, folder = tmp_path / "prompts.jsonl", RunFolder(tmp_path / "run")
    data.write_text("one\n")
    settings = recipe(f"data.prompts={data}")
    begun = folder.begin_or_resume("ppo", settings, 1, inputs=[data])
    (begun.folder / CHECKPOINTS / "step-1").mkdir(parents=True)
    data.write_text("another\n")
    folder.look("ppo", settings)
    data.write_text("one\n")
    with pytest.raises(UserError, match=r"prompts\.jsonl changed while ppo read"):
        folder.begin_or_resume("ppo", settings, 1, inputs=[data])
    assert (begun.folder / CHECKPOINTS / "step-1").is_dir()
    folder.look("ppo", settings)
    assert folder.begin_or_resume("ppo", settings, 1, inputs=[data]).folder == begun.folder


def test_a_measuring_anew_is_refused_too_where_what_it_read_has_changed(tmp_path: Path) -> None:
    data, folder = tmp_path / "heldout.jsonl", RunFolder(tmp_path / "run")
    data.write_text("one\n")
    settings = recipe(f"data.heldout_prompts={data}")
    finish(folder, "annotate", 1, settings=settings)
    folder.look("annotate", settings)
    data.write_text("another\n")
    with pytest.raises(UserError, match=r"heldout\.jsonl changed while annotate read"):
        folder.begin_measuring("annotate", settings, 1)
    assert not folder.stage("annotate", 1).with_name("annotate.measured").exists()


def test_a_plugin_that_is_no_longer_named_is_another_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, copy, other = (tmp_path / f"{name}.py" for name in ("one", "copy", "other"))
    for file, text in ((one, "1"), (copy, "1"), (other, "2")):
        file.write_text(text)
    folder = RunFolder(tmp_path / "run")
    for name, number in (("sft", None), ("reward", 1)):
        finish(folder, name, number, settings=recipe(f"plugins=[{one}]"))
    for same in ([one], [one, other], [other, one], [copy]):
        assert folder.kept("reward", 1, recipe(f"plugins=[{','.join(map(str, same))}]")), same
    assert folder.kept("sft", None, recipe(f"plugins=[{other}]")), "which no plugin has a part in"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "one.py").write_text("2")
    finish(folder, "ppo", 1, settings=recipe("plugins=[one.py]"))
    finish(folder, "annotate", 1, settings=recipe("plugins=[one.py]"))
    monkeypatch.chdir(tmp_path / "there")
    assert folder.kept("annotate", 1, recipe("plugins=[one.py]"))
    with pytest.raises(UserError, match=r"plugins=.*one\.py, now .*there/one\.py"):
        folder.kept("ppo", 1, recipe("plugins=[one.py]"))
    for others in (f"plugins=[{other}]", "plugins=[]"):
        with pytest.raises(UserError, match=r"reward was made with other settings: plugins=\[.*one\.py"):
            folder.kept("reward", 1, recipe(others))
        with pytest.raises(UserError, match=r"reward was made with other settings: plugins="):
            folder.check_settings(recipe(others), ["round-1/ppo"])


def test_folders_of_ones_own_beside_the_rounds_are_no_rounds(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for number in (2, 10):
        finish(folder, "ppo", number)
    shutil.copytree(tmp_path / "round-2", tmp_path / "round-2-before")
    assert folder.latest_round("ppo") == 10
    folder.check_settings(recipe(), ["round-11/ppo"])
