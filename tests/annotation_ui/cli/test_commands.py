"""``python -m annotation_ui``: accounts, reports, backups, and what it says to wrong input."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import child_process
import pytest
from annotation_fixtures import Office, new_item

from annotation_ui.__main__ import main
from annotation_ui.app_settings import AppSettings, load_settings
from annotation_ui.cli.command_parser import COMMANDS, command_named
from annotation_ui.desk.training_and_test import is_prepared
from annotation_ui.store import accounts, sign_ins
from annotation_ui.store.database import Store
from annotation_ui.store.tables import project

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "annotations.db"


@pytest.fixture
def run(database: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command over the store; gives exit code, standard output and standard error."""

    def do(*words: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code = main([*words, f"database={database}"])
        said = capsys.readouterr()
        return code, said.out, " ".join(said.err.split())

    return do


def test_an_account_is_made_with_a_password_from_standard_input(run: Run, database: Path) -> None:
    code, _, said = run("users", "add", "ada", "--role", "reviewer", "--password-stdin", stdin="long enough\n")
    assert code == 0 and "added reviewer ada" in said and "long enough" not in said
    token = sign_ins.sign_in(Store(database), load_settings().accounts, "ada", "long enough")
    found = sign_ins.whose(Store(database), token)
    assert found is not None and (found.username, found.role) == ("ada", "reviewer")


def test_a_made_up_password_is_shown_once_and_works(run: Run, database: Path) -> None:
    _, _, said = run("users", "add", "ada")
    password = said.rpartition("shown once: ")[2]
    assert len(password) >= 16
    assert sign_ins.sign_in(Store(database), load_settings().accounts, "ada", password)
    assert password not in run("users", "list")[1]


def test_accounts_are_listed_closed_and_withdrawn(run: Run) -> None:
    for name in ("ada", "ben", "chi"):
        run("users", "add", name)
    run("users", "close", "ben")
    run("users", "withdraw", "chi")
    _, listed, _ = run("users", "list")
    assert [line.split("\t")[:3] for line in listed.splitlines()] == [
        ["ada", "annotator", "active"],
        ["ben", "annotator", "closed"],
        ["chi", "annotator", "withdrawn"],
    ]
    run("users", "reopen", "ben")
    assert "ben\tannotator\tactive" in run("users", "list")[1]


def test_somebody_may_be_let_in_without_the_test(run: Run, database: Path) -> None:
    run("users", "add", "ada")
    assert run("users", "qualify", "ada", "--project", "safety")[0] == 0
    settings = load_settings().qualification
    with Store(database).read() as connection:
        ada = accounts.find(connection, "ada")
        prepared = {
            row.name: is_prepared(connection, settings, ada.id, row) for row in connection.execute(project.select())
        }
    assert prepared == {"helpfulness": False, "safety": True}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("users", "add", "no good"), "no good"),
        (("users", "close", "nobody"), "there is no account 'nobody'"),
        (("users", "qualify", "nobody", "--project", "safety"), "nobody"),
        (("report", "--project", "speed"), "there is no annotation store"),
        (("export", "out.jsonl"), "there is no annotation store"),
        (("report", "projects.helpfulness.overlap=0"), "overlap"),
        (("report", "projects.helpfulness.overlp=2"), "did you mean"),
        (("serve", "host=0.0.0.0"), "--allow-remote"),
        (("serve", "host=0.0.0.0", "--allow-remote", "--pairs-only"), "needs accounts"),
        (("serve", "--pairs-only", "qualification.questions=99"), "only 14 questions"),
        (("report", "--config", "nowhere.yaml"), "nowhere.yaml"),
    ],
)
def test_wrong_input_is_one_message_and_exit_code_2(run: Run, words: tuple[str, ...], named: str) -> None:
    code, out, said = run(*words)
    assert (code, out) == (2, "")
    assert said.startswith("error: ") and named in said and "Traceback" not in said


def test_a_short_password_changes_nothing(run: Run) -> None:
    assert run("users", "add", "ada", "--password-stdin", stdin="short\n")[0] == 2
    assert run("users", "list")[1] == ""


def test_without_a_store_there_is_nothing_to_work_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report"]) == 2
    assert "--run RUN" in capsys.readouterr().err


def test_the_report_comes_as_text_page_and_json(run: Run, tmp_path: Path) -> None:
    run("users", "add", "ada")
    assert "No judgments" in run("report")[1]
    assert json.loads(run("report", "--json")[1])["projects"] == []
    assert "there is no project 'speed'; there are: helpfulness, safety" in run("report", "--project", "speed")[2]
    page = tmp_path / "quality.html"
    assert run("report", "--html", str(page))[0] == 0
    assert page.read_text(encoding="utf-8").lstrip().startswith("<!")


def test_an_export_says_what_it_has_not(run: Run, database: Path, tmp_path: Path) -> None:
    """By default, what may be trained on, of people who are qualified; the rest is counted, and written on request."""
    office, target = Office(Store(database), live=False), str(tmp_path / "out.jsonl")
    items = [new_item(name, answered=True, part=part) for name, part in (("a", "train"), ("b", "heldout"))]
    office.add_items(items, overlap=2)
    for name in ("ada", "sim-ben"):
        person = office.person(name)
        person.fetch()
        person.judge(1)
        person.judge(1)
    code, _, said = run("export", target)
    assert code == 2 and all(
        reason in said for reason in ("2 held out", "1 annotator is not qualified", "1 simulated", "nothing is written")
    )
    code, _, said = run("export", target, "qualification.required=false")
    assert code == 0 and "wrote 1 comparisons" in said and "left out: 2 held out, 1 simulated)" in said
    _, _, said = run("export", target, "--part", "heldout", "--with-simulated", "qualification.required=false")
    assert "wrote 2 comparisons" in said and "left out: 2 for training" in said
    _, _, said = run("export", target, "--part", "all", "--with-simulated", "qualification.required=false")
    assert "wrote 4 comparisons" in said and "left out: none" in said


def test_a_backup_is_a_whole_store_and_replaces_nothing(run: Run, tmp_path: Path) -> None:
    run("users", "add", "ada")
    copy = tmp_path / "copies" / "monday.db"
    assert run("backup", str(copy))[0] == 0
    with Store(copy).read() as connection:
        assert accounts.usernames(connection) == ["ada"]
    code, _, said = run("backup", str(copy))
    assert code == 2 and "exists" in said


def test_the_run_may_stand_before_or_after_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--run", str(tmp_path), "users", "list"], ["users", "list", "--run", str(tmp_path)]):
        assert main(words) == 0
    assert (tmp_path / "annotation" / "annotations.db").is_file()


def test_every_setting_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    said = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "lease_minutes" in said and "projects.NAME.overlap" in said and "variants.temperature" in said


@pytest.mark.integration
def test_settings_need_no_torch() -> None:
    """Serving pairs that were sampled before has to fit into little memory."""
    code = (
        "import sys, annotation_ui.cli.serve_commands, annotation_ui.web.gradio_app; sys.exit('torch' in sys.modules)"
    )
    assert child_process.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.integration
def test_help_mistakes_and_no_store_wait_for_no_library() -> None:
    """What can be said at once is said before anything heavy is imported."""
    heavy = ("torch", "transformers", "datasets", "gradio", "fastapi", "sqlalchemy", "scipy", "matplotlib")
    code = f"""
import sys
from annotation_ui.__main__ import main
for words in (["--help"], ["users", "--hlp"], ["users", "list", "overlp=2"], ["users", "list"], ["serve", "--what"]):
    try:
        main(words)
    except SystemExit:
        pass
print([name for name in {heavy} if name in sys.modules])
"""
    done = child_process.run([sys.executable, "-c", code])
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_command_is_there() -> None:
    assert all(callable(command_named(name)) for name in COMMANDS)


def test_usage_names_the_program_that_was_called(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["users", "--help"], "tandem desk")
    said = capsys.readouterr().out
    assert said.startswith("usage: tandem desk users") and "python -m annotation_ui" not in said


def test_projects_are_named_by_key_or_in_a_list() -> None:
    given = {"title": "T", "dimension": "safety"}
    by_key = AppSettings.model_validate({"projects": {"safety": given}})
    assert by_key == AppSettings.model_validate({"projects": [{"name": "safety", **given}]})
