"""Every hint that a stage prints, run literally, does what it says: following hints alone leads to where one wanted."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from stage_fixtures import reduced_recipe

from stages.__main__ import main as tandem

pytestmark = pytest.mark.integration

HINT = re.compile(r"(?:Make it first|Make it again|Measure it again|To make it with these): python -m stages\.([^\n]*)")
END = re.compile(r"(\. Or |\.? *$)")


def hint_in(shown: str) -> list[str]:
    """The command that a message names, as words."""
    found = HINT.search(shown)
    assert found is not None, shown
    return shlex.split(END.split(found[1])[0])


def follow(words: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Run a command, and whatever it says is to be run first, until it has done what it is for; returns the stages."""
    done: list[str] = []
    waiting = [words]
    while waiting:
        assert len(done) + len(waiting) < 20, f"hints lead in a circle: {done}"
        capsys.readouterr()
        code = tandem(waiting[-1])
        shown = capsys.readouterr().err
        if code == 0:
            done.append(waiting.pop()[0])
        else:
            assert code == 2, shown
            waiting.append(hint_in(shown))
            assert waiting[-1] not in waiting[:-1], f"a hint that leads back to itself: {shown}"
    return done


@pytest.fixture
def own(files: dict[str, str], tmp_path: Path) -> list[str]:
    """The words that name a recipe and a run that is not there yet; with data of their own, to be edited."""
    data = Path(shutil.copytree(Path(files["prompts"]).parent, tmp_path / "data"))
    named = {name: str(data / Path(file).name) for name, file in files.items()}
    recipe = reduced_recipe(named, tmp_path / "run")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    return ["--config", str(tmp_path / "recipe.yaml")]


def test_hints_lead_from_nothing_to_the_report(
    own: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert follow(["ppo", *own], capsys) == ["base", "sft", "annotate", "reward", "ppo"]
    assert follow(["evaluate", *own], capsys) == ["evaluate"]
    # One stage is made otherwise: the hints make again what was made from it, and nothing else.
    assert tandem(["sft", "sft.learning_rate=0.002", "overwrite=true", f"run_dir={tmp_path / 'run'}"]) == 0
    again = follow(["evaluate", "overwrite=true", f"run_dir={tmp_path / 'run'}"], capsys)
    assert again[-1] == "evaluate" and set(again) == {"annotate", "reward", "ppo", "evaluate"}
    assert follow(["pipeline", f"run_dir={tmp_path / 'run'}"], capsys) == ["pipeline"]
    # Held-out prompts are others: what is measured on them is measured again, and no policy is trained.
    file = tmp_path / "data" / "heldout_prompts.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    assert follow(["evaluate", "overwrite=true", f"run_dir={tmp_path / 'run'}"], capsys) == [
        "annotate",
        "reward",
        "evaluate",
    ]
