"""What a stage says while it works, in the width that there is."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from stages.door import progress_and_exit as module
from stages.door.progress_and_exit import figures_line, progress

METRICS = {"objective/score": 1.2345, "objective/kl": 0.5, "rollout/length": 45.25, "rollout/stop_rate": 0.98}


def test_figures_are_left_out_whole_where_there_is_no_room_for_them() -> None:
    assert figures_line(METRICS) == "score 1.23  kl 0.5  length 45.2  stop_rate 0.98"
    assert figures_line(METRICS, 18) == "score 1.23  kl 0.5"
    assert figures_line(METRICS, 17) == "score 1.23"
    assert figures_line(METRICS, 9) == ""
    assert figures_line({"time/seconds": 3.0}) == ""


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("title", ["ppo", "helpfulness: ranking only"])
def test_bar_count_and_time_left_stand_on_one_line(columns: int, title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=columns, color_system=None, legacy_windows=False)
    monkeypatch.setattr(module, "console", console)
    with progress(title) as on_step:
        on_step(120, 4000, METRICS)
    line = next(line for line in screen.getvalue().replace("\r", "\n").splitlines() if "/4000" in line)
    assert title in line
    assert "120/4000" in line.replace(" ", "")
    assert line.count(":") - title.count(":") == 4  # two clocks
    assert ("stop_rate" in line) == (columns == 120)
    assert "\u2026" not in line


def test_without_a_terminal_one_line_at_the_end_has_every_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(module, "console", Console(file=screen, width=200))
    with progress("ppo") as on_step:
        on_step(3, 3, METRICS)
    said = screen.getvalue().strip()  # rich before 15 puts an empty line first
    assert re.fullmatch(r"ppo: 3 done in \d+ s  score 1\.23  kl 0\.5  length 45\.2  stop_rate 0\.98", said)


@pytest.mark.parametrize(
    ("title", "total", "room"),
    [("ppo", 7, 19), ("ppo", 4000, 13), ("helpfulness: ranking only", 4000, 10)],
)
def test_figures_get_what_title_bar_clocks_and_count_leave(
    title: str, total: int, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 80 columns: 22 of the title or more, 16 of the bar, 14 of two clocks, 6 between, and "7/7" or "4000/4000"."""
    rooms: list[int | None] = []
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None, legacy_windows=False)
    monkeypatch.setattr(module, "console", console)
    monkeypatch.setattr(module, "figures_line", lambda figures, room=None: str(rooms.append(room)))
    with progress(title) as on_step:
        on_step(1, total, METRICS)
    assert rooms == [room]
