"""What each stage needs before it can begin: asked for at its door, before torch is imported, and by the stage itself.

One function a stage. Each raises ``UserError`` that says what is missing, is finished already or cannot be, and what to
do. What takes a model or the data themselves to find out, the stage finds out later, before it writes anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from alignment.data.jsonl_and_raw_rows import check_source
from alignment.errors import UserError
from alignment.files import read_object, resolve
from alignment.models.model_places import check_there
from alignment.run.run_folder import RunFolder
from alignment.run.run_recipe import changes
from alignment.settings.recipe import Recipe
from alignment.settings.reward_sections import COLLECTED
from alignment.settings.sections import HELDOUT, TOY_MODEL
from alignment.workflow.own_data import check_judge_meant, check_meant


def check_base(recipe: Recipe) -> None:
    """The model is the toy, whose corpus is there."""
    if recipe.model.name_or_path != TOY_MODEL:
        raise UserError(f"model.name_or_path={recipe.model.name_or_path} comes pretrained: start with stages.sft")
    folder = RunFolder(recipe.run_dir)
    folder.check_not_finished("base", recipe)
    folder.check_settings(recipe, ["base"])
    _check_sources([recipe.base.corpus])


def check_sft(recipe: Recipe) -> None:
    """The base model is made, and the demonstrations are there."""
    folder = RunFolder(recipe.run_dir)
    if recipe.model.name_or_path == TOY_MODEL:
        folder.require("base")
    else:
        check_there(recipe.model.name_or_path, f"model.name_or_path={recipe.model.name_or_path}")
    folder.check_not_finished("sft", recipe)
    folder.check_settings(recipe, ["sft"])
    check_meant(recipe, "sft.data")
    _check_sources([recipe.sft.data, recipe.data.heldout_prompts])


def check_annotate(recipe: Recipe, round_number: int = 1) -> None:
    """There are comparisons to read, or an SFT model that answers prompts."""
    folder, settings = RunFolder(recipe.run_dir), recipe.annotate
    folder.check_not_finished("annotate", recipe, round_number)
    folder.check_settings(recipe, [folder.place("annotate", round_number)])
    check_judge_meant(recipe, "annotate.source", toys="simulated", instead="ui or annotate.source=dataset")
    if settings.source != "dataset":
        check_meant(recipe, "data.heldout_prompts")
        folder.require("sft")
        _check_sources([*_prompt_files(recipe), recipe.data.heldout_prompts])
    elif settings.data is None:
        raise UserError("annotate.source=dataset needs annotate.data=FILE or a Hub name")
    else:
        _check_sources([settings.data, recipe.data.heldout_prompts])


def check_reward(recipe: Recipe, round_number: int = 1) -> None:
    """The SFT model is made, and the comparisons are there, collected by the run or in files."""
    folder = RunFolder(recipe.run_dir)
    folder.require("sft")
    folder.check_not_finished("reward", recipe, round_number)
    folder.check_settings(recipe, [folder.place("reward", round_number)])
    _check_comparisons(recipe, folder, round_number)


def check_ablation(recipe: Recipe) -> None:
    """Variants of the reward models need what the reward models need; they may come before or after them."""
    folder = RunFolder(recipe.run_dir)
    _check_comparisons(recipe, folder, folder.latest_round("annotate") or 1)
    folder.require("sft")


def check_reward_evaluation(recipe: Recipe) -> None:
    """There are reward models to evaluate; comparisons that are named are there."""
    folder, given = RunFolder(recipe.run_dir), recipe.reward.evaluation
    if given.models is None:
        folder.require("reward", folder.latest_round("reward") or 1)
    _check_sources(item.data for item in given.data or ())


def check_ppo(recipe: Recipe, round_number: int = 1, *, method: str | None = None) -> None:
    """What is to be run is not finished; reward models, SFT model and prompts are there."""
    folder, given = RunFolder(recipe.run_dir), recipe.ppo.reward_models
    making = unfinished_methods(recipe, folder, round_number, method=method)
    folder.check_settings(recipe, [folder.place(name, round_number) for name in making])
    check_meant(recipe, *(["sft.data"] if "rejection" in making else []))
    if recipe.reward.guard_share > 0 or given.helpfulness is None or given.safety is None:
        folder.require("reward", round_number)
    folder.require("sft")
    _check_sources([*_prompt_files(recipe), recipe.data.heldout_prompts])


def unfinished_methods(recipe: Recipe, folder: RunFolder, round_number: int, *, method: str | None = None) -> list[str]:
    """What is to be run; a rejection stage that is finished is kept where ``both`` was stopped between the two.

    Args:
        recipe: its ``ppo.method`` is meant where no other is given.
        folder: the run.
        round_number: of the round, from 1.
        method: ``rejection``, ``ppo`` or ``both``.
    """
    method = method or recipe.ppo.method
    names: list[str] = ["rejection", "ppo"] if method == "both" else [method]
    if method == "both" and not folder.finished("ppo", round_number):
        names = [name for name in names if not folder.kept(name, round_number, recipe)]
    for name in names:
        folder.check_not_finished(name, recipe, round_number)
    return names


def check_evaluate(recipe: Recipe, round_number: int = 1) -> None:
    """There are policies to judge, and held-out prompts to judge them on."""
    folder = RunFolder(recipe.run_dir)
    folder.require("sft")
    for name in ("annotate", "reward", "rejection", "ppo"):
        if folder.finished(name, round_number):
            folder.require(name, round_number, with_figures=True)
    folder.check_not_finished("eval", recipe, round_number)
    folder.check_settings(recipe, [folder.place("eval", round_number)])
    _check_evaluation_meant(recipe)
    if recipe.data.heldout_prompts is None:
        raise UserError("stages.evaluate needs prompts to judge on: give data.heldout_prompts=FILE")
    _check_sources([recipe.data.heldout_prompts])


def _check_evaluation_meant(recipe: Recipe) -> None:
    """Held-out prompts and judge are not the toy's by mere default in a run with own data."""
    check_meant(recipe, "data.heldout_prompts")
    check_judge_meant(recipe, "evaluate.judge", toys="gold", instead="none")


def check_export(recipe: Recipe) -> None:
    """What is to be exported is made."""
    folder, section = RunFolder(recipe.run_dir), recipe.export
    folder.require("sft")
    if section.what == "policy":
        return
    number = section.round or folder.latest_round("reward") or 1
    trained = folder.require("reward", number) / section.what
    if not trained.is_dir():
        raise UserError(f"{trained} is missing: round {number} trained no {section.what} model (reward.models)")


def check_chat(recipe: Recipe) -> None:
    """There is somebody to talk to."""
    RunFolder(recipe.run_dir).require("sft")


def check_pipeline(recipe: Recipe) -> None:
    """Every file that a stage will read is there, and what is finished was made with these settings."""
    folder = RunFolder(recipe.run_dir)
    planned = list(planned_stages(recipe))
    for name, number in planned:
        if why_evaluated_again(folder, name, number, recipe) or not folder.kept(name, number, recipe):
            break
    else:
        return  # everything is made: nothing is read again
    check_meant(recipe, "sft.data")
    _check_evaluation_meant(recipe)
    if any(name == "annotate" for name, _ in planned):
        check_judge_meant(recipe, "annotate.source", toys="simulated", instead="ui or annotate.source=dataset")
    files = [recipe.sft.data, *_prompt_files(recipe), recipe.data.heldout_prompts, *recipe.reward.sources]
    collects = any(name == "annotate" for name, _ in planned)
    files += [recipe.annotate.data] if collects and recipe.annotate.source == "dataset" else []
    files += [recipe.base.corpus] if planned[0][0] == "base" else []
    _check_sources(files)


def planned_stages(recipe: Recipe) -> Iterator[tuple[str, int | None]]:
    """The stage folders that the pipeline makes, in order, each with its round."""
    if recipe.model.name_or_path == TOY_MODEL:
        yield "base", None
    yield "sft", None
    for number in range(1, recipe.rounds + 1):
        if recipe.reward.reads_collected:
            yield "annotate", number
        yield "reward", number
        for method in ("rejection", "ppo"):
            if recipe.ppo.method in (method, "both"):
                yield method, number
        yield "eval", number


def why_evaluated_again(folder: RunFolder, name: str, number: int | None, recipe: Recipe) -> str:
    """Why a finished evaluation is made again unasked; empty for one that stays, and for other stages.

    Args:
        folder: the run.
        name: of the stage.
        number: its round.
        recipe: with which it would be made again.
    """
    if name != "eval" or not folder.finished(name, number):
        return ""
    inputs, others = (
        folder.changed_inputs(name, number),
        folder.inputs.changed_settings(folder.place(name, number), recipe),
    )
    why = [f"made before the present {' and '.join(inputs)}"] if inputs else []
    why += [f"made with other settings: {changes(others)}"] if others else []
    if not why and folder.is_made_again(name, number):
        why = ["begun anew, and stopped"]
    report = folder.root / "report.json"
    if not why and number == recipe.rounds and report.is_file():
        shown = read_object(report).get("rounds", number)
        why = [f"finished, but the report is of round {shown} now"] if shown < number else []
    return f"was {', and '.join(why)}" if why else ""


def _check_comparisons(recipe: Recipe, folder: RunFolder, round_number: int) -> None:
    """The comparisons of all rounds so far, if the reward models read these, and the files that they read."""
    for number in range(1, round_number + 1) if recipe.reward.reads_collected else ():
        folder.require("annotate", number, with_figures=True)
    _check_sources([*recipe.reward.sources, recipe.data.heldout_prompts])


def _prompt_files(recipe: Recipe) -> list[str | None]:
    """The files of prompts that are trained on, or that select a checkpoint."""
    selection = recipe.data.selection_prompts
    return [recipe.data.prompts, None if selection == HELDOUT else selection]


def _check_sources(names: Iterable[str | None]) -> None:
    """Raise ``UserError`` for a file that is not there; what may be on the Hub is asked for later."""
    for name in names:
        if name is not None and name != COLLECTED:
            check_source(str(resolve(name)))
