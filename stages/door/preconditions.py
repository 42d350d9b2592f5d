"""What each stage needs before it can begin: asked for at its door, before torch is imported, and by the stage itself.

One function a stage. Each raises ``UserError`` that says what is missing, is finished already or cannot be, and what to
do. What takes a model or the data themselves to find out, the stage finds out later, before it writes anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from alignment.data.jsonl_and_raw_rows import check_source
from alignment.errors import UserError
from alignment.files import resolve
from alignment.run.run_folder import RunFolder
from alignment.settings.recipe import Recipe
from alignment.settings.reward_sections import COLLECTED
from alignment.settings.sections import TOY_MODEL

SFT_COMMAND = "python -m stages.sft"
REWARD_COMMAND = "python -m stages.reward"


def check_base(recipe: Recipe) -> None:
    """The model is the toy, whose corpus is there."""
    if recipe.model.name_or_path != TOY_MODEL:
        raise UserError(f"model.name_or_path={recipe.model.name_or_path} comes pretrained: start with stages.sft")
    RunFolder(recipe.run_dir).check_not_finished("base", recipe)
    _check_sources([recipe.base.corpus])


def check_sft(recipe: Recipe) -> None:
    """The base model is made, and the demonstrations are there."""
    folder = RunFolder(recipe.run_dir)
    if recipe.model.name_or_path == TOY_MODEL:
        folder.require("base", command="python -m stages.base")
    folder.check_not_finished("sft", recipe)
    _check_sources([recipe.sft.data, recipe.data.heldout_prompts])


def check_annotate(recipe: Recipe, round_number: int = 1) -> None:
    """There are comparisons to read, or an SFT model that answers prompts."""
    folder, settings = RunFolder(recipe.run_dir), recipe.annotate
    folder.check_not_finished("annotate", recipe, round_number)
    if settings.source != "dataset":
        folder.require("sft", command=SFT_COMMAND)
        _check_sources([recipe.data.prompts, recipe.data.heldout_prompts])
    elif settings.data is None:
        raise UserError("annotate.source=dataset needs annotate.data=FILE or a Hub name")
    else:
        _check_sources([settings.data, recipe.data.heldout_prompts])


def check_reward(recipe: Recipe, round_number: int = 1) -> None:
    """The SFT model is made, and the comparisons are there, collected by the run or in files."""
    folder = RunFolder(recipe.run_dir)
    folder.require("sft", command=SFT_COMMAND)
    folder.check_not_finished("reward", recipe, round_number)
    _check_comparisons(recipe, folder, round_number)


def check_ablation(recipe: Recipe) -> None:
    """Variants of the reward models need what the reward models need; they may come before or after them."""
    folder = RunFolder(recipe.run_dir)
    _check_comparisons(recipe, folder, folder.latest_round("annotate") or 1)
    folder.require("sft", command=SFT_COMMAND)


def check_reward_evaluation(recipe: Recipe) -> None:
    """There are reward models to evaluate; comparisons that are named are there."""
    folder, given = RunFolder(recipe.run_dir), recipe.reward.evaluation
    if given.models is None:
        folder.require("reward", folder.latest_round("reward") or 1, command=REWARD_COMMAND)
    _check_sources(item.data for item in given.data or ())


def check_ppo(recipe: Recipe, round_number: int = 1) -> None:
    """What is to be run is not finished; reward models, SFT model and prompts are there."""
    folder, given = RunFolder(recipe.run_dir), recipe.ppo.reward_models
    unfinished_methods(recipe, folder, round_number)
    if recipe.reward.guard_share > 0 or given.helpfulness is None or given.safety is None:
        folder.require("reward", round_number, command=REWARD_COMMAND)
    folder.require("sft", command=SFT_COMMAND)
    _check_sources([recipe.data.prompts, recipe.data.heldout_prompts])


def unfinished_methods(recipe: Recipe, folder: RunFolder, round_number: int) -> list[str]:
    """What is to be run; a rejection stage that is finished is kept where ``both`` was stopped between the two."""
    names: list[str] = ["rejection", "ppo"] if recipe.ppo.method == "both" else [recipe.ppo.method]
    if recipe.ppo.method == "both" and not folder.finished("ppo", round_number):
        names = [name for name in names if not folder.kept(name, round_number, recipe)]
    for name in names:
        folder.check_not_finished(name, recipe, round_number)
    return names


def check_evaluate(recipe: Recipe, round_number: int = 1) -> None:
    """There are policies to judge, and held-out prompts to judge them on."""
    folder = RunFolder(recipe.run_dir)
    folder.require("sft", command=SFT_COMMAND)
    if folder.finished("reward", round_number):
        folder.require("reward", round_number, command=REWARD_COMMAND)
    folder.check_not_finished("eval", recipe, round_number)
    if recipe.data.heldout_prompts is None:
        raise UserError("stages.evaluate needs prompts to judge on: give data.heldout_prompts=FILE")
    _check_sources([recipe.data.heldout_prompts])


def check_export(recipe: Recipe) -> None:
    """What is to be exported is made."""
    folder, section = RunFolder(recipe.run_dir), recipe.export
    folder.require("sft", command=SFT_COMMAND)
    if section.what == "policy":
        return
    number = section.round or folder.latest_round("reward") or 1
    trained = folder.require("reward", number, command=REWARD_COMMAND) / section.what
    if not trained.is_dir():
        raise UserError(f"{trained} is missing: round {number} trained no {section.what} model (reward.models)")


def check_chat(recipe: Recipe) -> None:
    """There is somebody to talk to."""
    RunFolder(recipe.run_dir).require("sft", command=SFT_COMMAND)


def check_pipeline(recipe: Recipe) -> None:
    """Every file that a stage will read is there, and what is finished was made with these settings."""
    folder = RunFolder(recipe.run_dir)
    planned = list(planned_stages(recipe))
    for name, number in planned:
        stale = name == "eval" and folder.finished(name, number) and folder.changed_inputs(name, number)
        if stale or not folder.kept(name, number, recipe):
            break
    else:
        return  # everything is made: nothing is read again
    files = [recipe.sft.data, recipe.data.prompts, recipe.data.heldout_prompts, *recipe.reward.sources]
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


def _check_comparisons(recipe: Recipe, folder: RunFolder, round_number: int) -> None:
    """The comparisons of all rounds so far, if the reward models read these, and the files that they read."""
    for number in range(1, round_number + 1) if recipe.reward.reads_collected else ():
        folder.require("annotate", number, command="python -m stages.annotate")
    _check_sources([*recipe.reward.sources, recipe.data.heldout_prompts])


def _check_sources(names: Iterable[str | None]) -> None:
    """Raise ``UserError`` for a file that is not there; what may be on the Hub is asked for later."""
    for name in names:
        if name is not None and name != COLLECTED:
            check_source(str(resolve(name)))
