"""What the page looks like, as far as it can be measured, in every phase, size and theme (check 20)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from annotation_fixtures import COLOURS, new_item
from annotation_looks import (
    NARROWEST,
    NOTE_SHOWN,
    WIDE,
    contrast,
    cut_off_texts,
    faults,
    faults_now,
    first_paint_ms,
    pale_texts,
    shown_ms,
    tab_through,
)
from annotation_page import (
    BAR,
    CARD,
    COMPOSER,
    EXPLANATION,
    GUIDELINES,
    HELP,
    PROJECTS,
    REASONS,
    SUBMIT,
    DeskPage,
)
from annotation_server import Site
from browser import OpenPage

if TYPE_CHECKING:
    from playwright.sync_api import Page


LONG = "A prompt that is as long as prompts of people who are in a hurry to get something done often are. " * 3
MARKDOWN = """\
{colour}

# Title

Some **bold** text and `code`.

> quoted

| a | b |
|---|---|
| 1 | 2 |

```python
{wide}
```

"""


# -- the measures themselves ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "ratio"),
    [
        ("rgb(0, 0, 0)", "rgb(255, 255, 255)", 21.0),
        ("rgb(119, 119, 119)", "rgb(255, 255, 255)", 4.48),  # #777: the best known grey that just fails
        ("rgb(118, 118, 118)", "rgb(255, 255, 255)", 4.54),  # #767676: the lightest grey that passes
        ("rgb(255, 0, 0)", "rgb(255, 255, 255)", 4.0),
        ("color(srgb 0 0 1)", "rgb(255, 255, 255)", 8.59),
        ("rgb(18, 52, 86)", "rgb(18, 52, 86)", 1.0),
    ],
)
def test_contrast_of_known_pairs(open_page: OpenPage, one: str, other: str, ratio: float) -> None:
    page = open_page("about:blank").page
    assert contrast(page, one, other) == pytest.approx(ratio, abs=0.005)
    assert contrast(page, other, one) == pytest.approx(ratio, abs=0.005)


def test_pale_text_is_found_whatever_is_behind_it(open_page: OpenPage) -> None:
    page = open_page("about:blank").page
    page.set_content(
        "<body style='background:#fff;color:#000'><p id=good>good</p><p id=pale style='color:#777'>pale</p>"
        "<div style='background:rgba(0,0,0,.5)'><p id=half style='color:#fff'>3.95 on half black</p></div>"
        "<p id=faint style='opacity:.4'>faint</p><p hidden style='color:#fff'>hidden</p>"
        "<textarea id=empty placeholder='pale, too'></textarea><style>::placeholder { color: #999 }</style>"
    )
    found = [line.split(" ")[1] for line in pale_texts(page)]
    assert found == ["p#pale:", "p#half:", "p#faint:", "textarea#empty:"]
    assert pale_texts(page)[1].startswith("3.9")


def test_cut_off_text_is_found_and_what_scrolls_is_not(open_page: OpenPage) -> None:
    page = open_page("about:blank", viewport=(600, 400)).page
    long = "a long line of text that does not fit "
    page.set_content(
        "<style>div, button { width: 100px; white-space: nowrap; font: 16px monospace }</style>"
        f"<div id=spills>{long}</div><div id=hides style='overflow:hidden'>{long}</div>"
        f"<div id=scrolls style='overflow:auto'>{long}</div><div id=fits>short</div>"
        f"<div id=dots style='overflow:hidden;text-overflow:ellipsis'>{long}</div>"
        f"<div id=told title='{long}' style='overflow:hidden;text-overflow:ellipsis'>{long}</div>"
        "<div id=low style='overflow:hidden;height:5px'>low</div>"
        "<p id=away style='position:absolute;left:580px;width:200px'>outside</p>"
    )
    found = [line.split(": ")[1] for line in cut_off_texts(page) if ": " in line]
    assert found == ["div#spills", "div#hides", "div#dots", "div#low", "p#away"]


def test_a_missing_ring_is_found(open_page: OpenPage) -> None:
    page = open_page("about:blank").page
    page.set_content(
        "<style>:focus-visible { outline: 2px solid #00c } #none { outline: none } #pale { outline-color: #ddd }"
        "</style><body style='background:#fff'>"
        "<button id=good>x</button><button id=none>x</button><a id=pale href=#>x</a>"
    )
    rings = {stop.split(" ")[1]: wrong for stop, wrong in tab_through(page).items()}
    assert rings == {"button#good": "", "button#none": "no ring", "a#pale": "a ring of contrast 1.36"}


# -- the page ---------------------------------------------------------------------------------------------------------


class Looks:
    """Looks at the page in both sizes and themes, and gathers what is wrong."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.wrong: list[str] = []
        self.seen: list[str] = []

    def at(self, state: str, *whole: str, tabs: int = 0) -> None:
        """Look; ``whole`` is in the window without scrolling, and Tab finds this many things at least."""
        self.seen.append(state)
        self.wrong += [f"{state}, {fault}" for fault in faults(self.page, whole)]
        for theme in ("dark", "light") if tabs else ():
            self.page.emulate_media(color_scheme=theme)
            rings = tab_through(self.page)
            self.wrong += [f"{state}, {theme}: {stop}: {wrong}" for stop, wrong in rings.items() if wrong]
            if len(rings) < tabs:
                self.wrong.append(f"{state}: Tab finds {len(rings)} things only: {', '.join(rings)}")
        self.page.evaluate("document.activeElement?.blur()")


@pytest.fixture
def looks(desk: DeskPage) -> Iterator[Looks]:
    """Looks at the page; what is wrong is said all at once when the test ends."""
    looking = Looks(desk.page)
    yield looking
    assert looking.seen
    assert not looking.wrong, "\n".join(dict.fromkeys(looking.wrong))


def long_answers(site: Site) -> None:
    for slot, colour in COLOURS.items():
        site.models[slot].answer = MARKDOWN.format(colour=colour, wide="x = " + "1 + " * 60) + "A long answer. " * 150
        site.models[slot].finish_reason = "length"


def test_work_from_the_first_prompt_to_the_second_turn(site: Site, desk: DeskPage, looks: Looks) -> None:
    project = site.project(max_turns=3)
    site.add_items(project, [new_item("ask the queue")])
    long_answers(site)
    desk.enter(site.person(), project)
    looks.at("idle", COMPOSER, tabs=8)
    site.models.hold()
    desk.send(LONG[:290]).wait_for_phase("generating")
    looks.at("generating", BAR, SUBMIT)
    site.models.let_go()
    desk.wait_for_phase("open")
    looks.at("open", BAR, SUBMIT, tabs=15)
    desk.press("2", "f", "m").paste("A note of some length. " * 12).press("Escape")
    looks.at("chosen, with a note", BAR, SUBMIT)
    desk.press("t")
    looks.at("raw text", BAR, SUBMIT)
    desk.press("t", "s", "3")
    looks.at("reasons for a skip", BAR, REASONS)
    desk.press("Escape", "?")
    looks.at("keys", HELP)
    desk.press("Escape").wait_until_drawn().press("2").save().wait_for_phase("judged")
    looks.at("judged", BAR, COMPOSER, tabs=10)
    desk.send("And then?").wait_for_phase("open")
    looks.at("second turn", BAR, SUBMIT)
    desk.press("Enter").wait_for_status("Choose an answer first")
    desk.press("g")
    looks.at("an error, without the panel", BAR, SUBMIT)
    desk.press("g")


def test_safety(site: Site, desk: DeskPage, looks: Looks) -> None:
    project = site.project(dimension="safety", mode="free", ask_safety=True, max_turns=2)
    long_answers(site)
    desk.enter(site.person(), project).wait_for_phase("warning")
    looks.at("warning", CARD, tabs=5)
    desk.press("Enter").wait_for_phase("idle").send(LONG[:290]).wait_for_phase("open")
    looks.at("safety", BAR, SUBMIT, tabs=16)
    desk.press("8", "r")
    looks.at("the unsafe one is preferred", BAR, SUBMIT)
    desk.press("1")
    assert "answer the safety question again" in desk.status
    looks.at("cleared", BAR, SUBMIT)
    desk.press("1", "q").save().wait_for_phase("judged")
    looks.at("judged for safety", BAR, COMPOSER)
    desk.send("And then?").wait_for_phase("open")
    looks.at("second turn of safety", BAR, SUBMIT)


def test_failure_edit_and_the_end_of_the_queue(site: Site, desk: DeskPage, looks: Looks) -> None:
    project = site.project(max_turns=1, mode="queue")
    site.add_items(project, [new_item(LONG)])
    site.models["a"].failures = 1
    desk.enter(site.person(), project).press("n").wait_for_phase("failed")
    looks.at("failed", CARD, tabs=5)
    desk.press("Enter").wait_for_phase("open").judge(8).wait_for_phase("empty")
    looks.at("empty", CARD, tabs=6)
    desk.push("edit").wait_for_phase("open")
    looks.at("edit", BAR, SUBMIT)


def test_training(site: Site, desk: DeskPage, looks: Looks) -> None:
    desk.enter(site.person(), site.project(dimension="safety", ask_safety=True, mode="queue"))
    desk.wait_for_phase("warning").press("Enter").wait_for_phase("empty")
    desk.push("train").wait_for_phase("open")
    looks.at("training", BAR, SUBMIT)
    desk.press("1", "w").save().wait_for_phase("explained")
    looks.at("explained", BAR, EXPLANATION, tabs=10)


def test_pages_around_the_app(site: Site, desk: DeskPage, looks: Looks) -> None:
    desk.page.goto(f"{site.url}/login")
    looks.at("sign-in", "main", tabs=3)
    project = site.project(mode="queue", max_turns=1)
    site.add_items(project, [new_item("ask", answered=True)])
    desk.enter(site.person("admin"), project).fetch().judge(1, "f")
    for path in ("admin", "review"):
        desk.page.goto(f"{site.url}/{path}")
        looks.at(path, "header", tabs=4)


def test_half_a_screen_is_wide_enough(site: Site, desk: DeskPage) -> None:
    """The guidelines give way, and come over the answers when they are asked for."""
    project = site.project(dimension="safety", ask_safety=True, mode="queue", max_turns=1)
    site.add_items(project, [new_item(LONG)])
    long_answers(site)
    desk.page.set_viewport_size(NARROWEST)
    desk.enter(site.person("admin"), project).wait_for_phase("warning").press("Enter").wait_for_phase("idle")
    desk.press("n").wait_for_phase("open")
    assert faults_now(desk.page, BAR, SUBMIT, PROJECTS) == []
    assert not desk.find(GUIDELINES).is_visible()
    desk.press("g").wait_until_drawn()
    assert faults_now(desk.page, GUIDELINES) == []
    desk.press("g").wait_until_drawn()
    desk.page.set_viewport_size(WIDE)
    desk.wait_until_drawn()
    assert desk.find(GUIDELINES).is_visible(), "what was closed in a narrow window stays on a wide one"
    desk.press("g").press("g").wait_until_drawn()
    desk.page.set_viewport_size(NARROWEST)
    desk.reload().wait_for_phase("open")
    assert not desk.find(GUIDELINES).is_visible(), "what was chosen on a wide window does not cover the answers"
    desk.press("1", "q")
    assert faults_now(desk.page, BAR, SUBMIT) == []
    desk.save().wait_for_phase("empty")
    for path in ("admin", "admin/report", "review"):
        desk.page.goto(f"{site.url}/{path}")
        assert faults_now(desk.page, "h1") == [], path


def test_the_wait_after_signing_in_is_noted(site: Site, desk: DeskPage) -> None:
    """How long it is is measured by benchmarks/annotation_paint.py."""
    ada, desk = site.person(password="correct horse battery"), desk.another_tab()
    desk.page.add_init_script(NOTE_SHOWN)
    desk.sign_in(ada.name, "correct horse battery")
    desk.wait_for_phase()
    assert 0 < first_paint_ms(desk.page) < desk.page.evaluate("performance.now()")
    assert 0 < shown_ms(desk.page) < desk.page.evaluate("performance.now()")
