"""A full disk, a folder that cannot be written, memory that does not suffice: one line each, and exit code 2."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path
from typing import Any, NoReturn

import child_process
import pytest
import torch
from stage_fixtures import outcome, reduced_recipe

from alignment.rl.ppo import PPO
from alignment.run.run_folder import RunFolder
from alignment.run.run_lock import killed_at
from stages.door.machine_faults import killed
from stages.door.progress_and_exit import guarded
from stages.export import write_folder as export
from stages.ppo import train_policy as ppo
from stages.sft import __main__ as sft


def a_surrogate() -> UnicodeEncodeError:
    try:
        "so \ud83d".encode()
    except UnicodeEncodeError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x/model"), "/x/model: the disk is full. Make room."),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk quota is used up. Make room."),
        (PermissionError(errno.EACCES, "Permission denied", "/runs"), "/runs: that is not permitted. See to"),
        (OSError(errno.EROFS, "Read-only file system", "/runs"), "/runs: the file system is read-only. See to its"),
        (MemoryError(), "out of memory (no more to be had). Lower what passes through the model at once: sft.micro"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "Tried to allocate 2 GiB"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), "out of memory"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "the disk is full"),
        (a_surrogate(), "'so \\ud83d'. Mend the file that it is from."),
    ],
)  # fmt: skip
def test_each_is_one_line_that_says_what_to_do(error: Exception, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> NoReturn:
        raise error

    code, shown = outcome(work, capsys)
    assert code == 2
    assert said in shown and shown.count("\n") == 1
    assert "hat was finished before is kept" in shown


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), KeyError("x"), OSError(errno.EINVAL, "odd")])
def test_a_fault_of_the_program_keeps_its_traceback(error: Exception) -> None:
    def work() -> NoReturn:
        raise error

    with pytest.raises(type(error)):
        guarded(work)


@pytest.mark.integration
def test_nothing_finished_is_lost_where_the_disk_is_full_in_the_middle_of_a_stage(
    files: dict[str, str],
    rewarded_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = Path(shutil.copytree(rewarded_run, tmp_path / "run"))
    recipe = reduced_recipe(files, run, "ppo.method=ppo", "ppo.save_steps=1")
    plain, updates = PPO.update, 0

    def full(trainer: PPO, *arguments: Any, **options: Any) -> Any:
        nonlocal updates
        updates += 1
        if updates == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(run / "round-1" / "ppo" / "metrics.jsonl"))
        return plain(trainer, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(PPO, "update", full)
        code, said = outcome(lambda: ppo.run(recipe), capsys)
    assert code == 2 and "metrics.jsonl: the disk is full" in said
    assert not RunFolder(run).finished("ppo", 1)
    assert (run / "round-1" / "ppo" / "checkpoints" / "step-000001").is_dir()
    export.run(reduced_recipe(files, run, "export.what=policy", f"export.to={tmp_path / 'out'}"))
    assert ppo.run(recipe)["updates"] == 2


def test_a_stage_whose_process_was_killed_is_named_by_the_next_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from alignment.run.run_folder import RunFolder\n"
        "from alignment.run.run_lock import note_running\n"
        "run = RunFolder(Path(sys.argv[1]))\n"
        "with run.lock():\n"
        "    note_running(run.root, 'round-1/ppo')\n"
        "    if sys.argv[2] == 'killed':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    raise SystemExit(3)\n"
    )
    for how, code in (("stopped", 3), ("killed", -9)):
        assert killed_at(tmp_path) is None
        done = child_process.run([sys.executable, "-c", program, str(tmp_path), how])
        assert done.returncode == code, done.stderr
    found = killed_at(tmp_path)
    assert found is not None and found["stage"] == "round-1/ppo" and found["host"] and found["since"]
    said = killed(tmp_path)
    assert (
        said is not None and "ended without a word" in said and said.endswith(" lower ppo.micro_batch_size_episodes.")
    )
    assert sft.main([f"run_dir={tmp_path}"]) == 2, "there is no base yet"
    assert said in capsys.readouterr().err
    with RunFolder(tmp_path).lock():
        pass
    assert killed_at(tmp_path) is None, "said once; whoever holds the run next is at work himself"


def test_ctrl_c_while_libraries_are_imported_is_one_line() -> None:
    done = child_process.run([sys.executable, "-c", "import stages\nraise KeyboardInterrupt"])
    assert (done.returncode, done.stderr) == (130, "stopped.\n")


def test_an_error_of_the_program_keeps_its_traceback_where_ctrl_c_has_none() -> None:
    done = child_process.run([sys.executable, "-c", "import stages\n1 / 0"])
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr and "Traceback" in done.stderr


def test_a_terminal_that_knows_ascii_only_is_told_all_the_same(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from stages.door.progress_and_exit import guarded\n"
        "def work():\n"
        "    from rich.console import Console\n"
        "    from rich.table import Table\n"
        "    table = Table('kl \u00b1', box=__import__('rich.box').box.SIMPLE)\n"
        "    table.add_row('0.5 \u2013 0.7')\n"
        "    Console().print(table)\n"
        "    print('caf\u00e9')\n"
        "sys.exit(guarded(work))\n"
    )
    done = child_process.run([sys.executable, "-c", program], env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert "0.5 ? 0.7" in done.stdout and "caf?" in done.stdout
