"""The annotation page as an annotator uses it: every selector of the tests stands here.

    def test_it(site, desk):                   # ``desk`` is the page of a browser, empty at the beginning of each test
        desk.enter(site.person(), site.project())
        desk.ask("How do I bake bread?")       # with the keyboard alone, as everything here
        desk.judge(3)

Each action waits for what it brings about: for a condition on the page, never for some time. When a test that uses
``desk`` ends, nothing has gone wrong in the browser, no request has gone elsewhere, and localStorage is empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from annotation_fixtures import COLOURS
from annotation_server import Site, Visitor
from browser import Chromium, Tab

from annotation_ui import texts
from annotation_ui.vocabulary import Side, Slot
from annotation_ui.web.security import COOKIE

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page, Route


SIDES: tuple[Side, Side] = ("left", "right")
PATIENCE_MS = 60_000
NOTE_POINTERS = """
window.pointerEvents = [];
for (const name of ["pointerdown", "pointermove", "mousedown", "mousemove", "wheel", "touchstart", "click"])
  addEventListener(name, (event) => {
    if (event.isTrusted && (name !== "click" || event.detail > 0)) window.pointerEvents.push(name);
  }, { capture: true, passive: true });
"""
"""A click that a key brings about has detail 0."""

_ENTER_AS_SOON_AS_SAVED = """(status) => {
  const line = document.querySelector(status);
  new MutationObserver((_, observer) => {
    if (line.dataset.level !== "saved") return;
    observer.disconnect();
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true }));
  }).observe(line, { attributes: true });
}"""

_ENTER_TWICE = """() => {
  for (let pressed = 0; pressed < 2; pressed += 1)
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true }));
}"""

STREAMS = "**/queue/join*"
CUT_OFF_STREAM = ("AbortError", "Connection errored out")

USER_NAME, ALERT, FLAGGED = "#username", "[role=alert]", ".card"
"""On the pages around the desk: of the sign-in page, and a judgment that a reviewer looks at."""
PROMPT_BOX, COUNTER, COMPOSER = "#prompt", "#counter", "#composer"
BAR, BINS, NOTE_BOX, SUBMIT, REASONS, REASON = "#bar", ".bins", "#note", "#submit", "#reasons", ".reason"
STATUS, HELP, PROJECTS, PROGRESS, HISTORY = "#status", "dialog#help", "select.project", "#progress", "#history"
GUIDELINES = ".guide .scroll"
PAST, NOW, CARD, EXPLANATION = "#scene .past", "#scene .turn.now .said", "#scene .card", "#scene .explanation"
MODEL_TEXT = "#left .body, #right .body, #scene .said, #history"
"""Wherever text of models and people is shown."""
PANES: dict[Side, str] = {"left": "#left .pane", "right": "#right .pane"}
RENDERED, RAW, BADGE, WRITING = ".body.rendered", ".body.raw", ".badge", ".writing"


class DeskPage:
    """The page in a tab, over a site."""

    def __init__(self, tab: Tab, site: Site) -> None:
        self.tab, self.site = tab, site

    @property
    def page(self) -> Page:
        return self.tab.page

    def another_tab(self) -> DeskPage:
        """A second tab of the same person, with the same cookies."""
        return DeskPage(Tab(self.tab.context.new_page(), self.tab.context, self.tab.traffic), self.site)

    # -- coming in -----------------------------------------------------------------------------------------------

    def enter(self, visitor: Visitor, project: str) -> DeskPage:
        """Open a project as somebody who is signed in."""
        self.tab.context.add_cookies([{"name": COOKIE, "value": visitor.token, "url": self.site.url}])
        return self.open(project)

    def open(self, project: str) -> DeskPage:
        """Open a project's page."""
        self.page.goto(f"{self.site.url}/?project={project}")
        return self.wait_for_phase()

    def reload(self) -> DeskPage:
        """Reload the page."""
        self.page.reload()
        return self.wait_for_phase()

    def sign_in(self, name: str, password: str) -> None:
        """Fill in the sign-in page with the keyboard."""
        self.page.goto(f"{self.site.url}/login")
        self.find(USER_NAME).focus()
        self.type(name).press("Tab").type(password)
        with self.page.expect_navigation():
            self.press("Enter")

    @contextmanager
    def leaving_a_stream(self) -> Iterator[None]:
        """Inside, the page may be left while answers come in, of which Gradio's own script complains on its way out."""
        yield
        errors = self.tab.traffic.console_errors
        errors[:] = [error for error in errors if not any(said in error for said in CUT_OFF_STREAM)]

    @contextmanager
    def streams_held(self) -> Iterator[list[Route]]:
        """Inside, what follows answers gets nothing; yields the requests that wait, as they come."""
        held: list[Route] = []
        self.page.route(STREAMS, lambda route: held.append(route))
        try:
            yield held
        finally:
            for route in held:
                route.continue_()
            self.page.unroute(STREAMS)

    # -- looking -------------------------------------------------------------------------------------------------

    def wait_for(self, expression: str, arg: Any = None) -> DeskPage:
        """Wait until a JavaScript expression, or a function of ``arg``, holds."""
        self.page.wait_for_function(expression, arg=arg, timeout=PATIENCE_MS)
        return self

    def wait_for_phase(self, *phases: str) -> DeskPage:
        """Wait until the page shows a desk in one of these phases, or in any, and has been drawn since."""
        now = "document.documentElement.dataset.phase"
        is_there = f"{now} && {now} !== 'none'"  # "none": the page says something and has no desk yet
        return self.wait_for(f"want => {is_there} && (!want.length || want.includes({now}))", phases).wait_until_drawn()

    def wait_until_drawn(self) -> DeskPage:
        """Wait for two frames: what was received is then in the document and on the screen."""
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return self

    def wait_for_text(self, selector: str, text: str) -> DeskPage:
        """Wait until an element contains a text."""
        expression = "([where, text]) => document.querySelector(where)?.innerText.includes(text)"
        return self.wait_for(expression, [selector, text])

    def wait_for_prompt(self, text: str) -> DeskPage:
        """Wait until a comparison of this prompt is on the desk, whole; its answers have to repeat the prompt."""
        self.wait_for_text(NOW, text)
        for pane in PANES.values():
            self.wait_for_text(pane, text)
        self.wait_for("document.documentElement.dataset.phase !== 'generating'")
        return self.wait_until_drawn()

    def wait_for_status(self, text: str) -> DeskPage:
        """Wait until the status line says this."""
        return self.wait_for_text(STATUS, text)

    @property
    def phase(self) -> str:
        return str(self.page.evaluate("document.documentElement.dataset.phase"))

    @property
    def status(self) -> str:
        return self.text(STATUS)

    @property
    def status_level(self) -> str:
        return str(self.find(STATUS).get_attribute("data-level"))

    def find(self, selector: str) -> Locator:
        """An element."""
        return self.page.locator(selector)

    def text(self, selector: str) -> str:
        """What can be read in an element."""
        return self.find(selector).inner_text()

    def button(self, action: str) -> Locator:
        """The buttons that do something: ``edit``, ``leave``, ``logout``, ``retract``, ``train``, ..."""
        return self.find(f"[data-do={action}]:visible")

    def answer(self, side: Side) -> str:
        """What can be read of an answer."""
        return self.text(f"{PANES[side]} {RENDERED}").strip()

    def answers(self) -> dict[Side, str]:
        """Both."""
        return {side: self.answer(side) for side in SIDES}

    def slots(self) -> dict[Side, Slot]:
        """Which slot stands on which side, by the colours that answers begin with."""
        shown = self.answers()
        return {side: slot for side in SIDES for slot, colour in COLOURS.items() if shown[side].startswith(colour)}

    @property
    def prompt(self) -> str:
        return self.text(NOW)

    @property
    def past(self) -> str:
        """The dialogue before the prompt."""
        return self.text(PAST) if self.find(PAST).count() else ""

    @property
    def history(self) -> list[str]:
        """The lines of the annotator's own last judgments."""
        return [" ".join(line.split()) for line in self.find(f"{HISTORY} li").all_inner_texts()]

    @property
    def progress(self) -> tuple[int, int, int]:
        """Judgments today and in all, and how many are left in the queue."""
        said = f"{self.text(PROGRESS)} {self.find(PROGRESS).get_attribute('title')}"
        today, total, left = (int(number) for number in re.findall(r"\d+", said))
        return today, total, left

    def chosen(self, name: str) -> str | None:
        """The value of the radio button that is chosen: ``option``, ``safety`` or ``reason``."""
        found = f"[...document.querySelectorAll('input[name={name}]:checked')]"
        values = self.page.evaluate(f"{found}.map(one => one.value)")
        assert len(values) <= 1
        return values[0] if values else None

    @property
    def option(self) -> int | None:
        value = self.chosen("option")
        return None if value is None else int(value)

    @property
    def label_of_option(self) -> str:
        """What the chosen option is called."""
        return str(self.find("input[name=option]:checked").get_attribute("aria-label"))

    @property
    def safety(self) -> str | None:
        return self.chosen("safety")

    @property
    def unsent(self) -> str:
        """What stands in the prompt box."""
        return self.find(PROMPT_BOX).input_value()

    @property
    def note(self) -> str:
        return self.find(NOTE_BOX).input_value()

    @property
    def flagged(self) -> bool:
        return self.button("flag").get_attribute("aria-pressed") == "true"

    @property
    def may_judge(self) -> bool:
        """Whether the options can be chosen; either all of them or none."""
        enabled = self.find("input[name=option]:enabled").count()
        assert enabled in (0, 8)
        return enabled == 8

    @property
    def focus(self) -> str:
        """The id of what has the focus; empty for nothing in particular."""
        return str(self.page.evaluate("document.activeElement?.id ?? ''"))

    @property
    def pointer_events(self) -> list[str]:
        """Events of a mouse, a pen or a finger since the page was loaded."""
        return list(self.page.evaluate("window.pointerEvents"))

    # -- doing, with the keyboard --------------------------------------------------------------------------------

    def press(self, *keys: str) -> DeskPage:
        """Press keys one after the other."""
        for key in keys:
            self.page.keyboard.press(key)
        return self

    def type(self, text: str) -> DeskPage:
        """Type a text, key by key."""
        self.page.keyboard.type(text)
        return self

    def push(self, action: str) -> DeskPage:
        """Press the first button that does something, with Enter."""
        self.button(action).first.press("Enter")
        return self

    def sign_out(self) -> None:
        """Sign out, and wait for the sign-in page."""
        with self.page.expect_navigation(url="**/login"):
            self.push("logout")

    def fetch(self) -> DeskPage:
        """Take the next item of the queue, and wait for its answers."""
        self.press("n")
        return self.wait_for_phase("open")

    def paste(self, text: str) -> DeskPage:
        """Put a text where the cursor is, all at once."""
        self.page.keyboard.insert_text(text)
        return self

    def send(self, text: str) -> DeskPage:
        """Send a prompt, and do not wait."""
        self.press("/")
        assert self.focus == "prompt", self.status
        return self.paste(text).press("Enter")

    def ask(self, text: str) -> DeskPage:
        """Send a prompt, and wait for both answers, which repeat it."""
        return self.send(text).wait_for_phase("open").wait_for_prompt(text)

    def judge(self, option: int, *more: str) -> DeskPage:
        """Choose an option, press more keys (safety, flag), and save."""
        self.press(str(option), *more)
        assert self.option == option
        return self.save()

    def save(self) -> DeskPage:
        """Save what is chosen, and wait until the server says that it did."""
        assert self.status_level != "saved" or not self.status, "the status line would look saved already"
        self.press("Enter")
        return self.wait_for(f"document.querySelector('{STATUS}').dataset.level === 'saved'").wait_until_drawn()

    def enter_as_soon_as_saved(self) -> DeskPage:
        """Have Enter pressed once more when the page says that a judgment is saved, before anything else happens."""
        self.page.evaluate(_ENTER_AS_SOON_AS_SAVED, STATUS)
        return self

    def enter_twice_at_once(self) -> DeskPage:
        """Press Enter twice before anything else can happen on the page."""
        self.page.evaluate(_ENTER_TWICE)
        return self

    def skip(self, number: int) -> DeskPage:
        """Skip for a reason from 1 to 7."""
        self.press("s")
        assert self.find(REASONS).is_visible()
        self.press(str(number), "Enter")
        return self.wait_for_status(f"Skipped: {list(texts.SKIP_REASONS.values())[number - 1].lower()}.")

    def undo(self) -> DeskPage:
        """Take the last judgment back, and wait until it was, or until it is refused."""
        self.press("u")
        return self.wait_for(f"document.querySelector('{STATUS}').innerText !== ''").wait_until_drawn()


# -- the browser's page -----------------------------------------------------------------------------------------------


@contextmanager
def blank(chromium: Chromium, tab: Tab) -> Iterator[None]:
    """A tab without cookies, storage and memories, as new; at the end nothing may have gone wrong in it."""
    with chromium.at_work():
        tab.context.clear_cookies()
        tab.page.set_viewport_size({"width": 1440, "height": 900})
        tab.page.emulate_media(color_scheme="light")
        for noted in (tab.traffic.console_errors, tab.traffic.failed_responses, tab.traffic.foreign_requests):
            noted.clear()
        yield
        assert tab.traffic.problems == [], tab.traffic.problems
        assert tab.page.url == "about:blank" or tab.page.evaluate("localStorage.length") == 0
        for page in tab.context.pages:
            if page is not tab.page:
                page.close()
        tab.page.goto("about:blank")


@pytest.fixture(scope="session")
def shared_tab(chromium: Chromium, shared_site: Site) -> Iterator[Tab]:
    """One tab for all tests of the shared site, so that what never changes is fetched once."""
    with chromium.at_work():
        tab = chromium.open(f"{shared_site.url}/login", viewport=(1440, 900), color_scheme="light")
        tab.context.add_init_script(NOTE_POINTERS)
    yield tab
    with chromium.at_work():
        tab.context.close()


@pytest.fixture
def desk(chromium: Chromium, shared_tab: Tab, site: Site) -> Iterator[DeskPage]:
    """The page, before anybody has signed in."""
    with blank(chromium, shared_tab):
        yield DeskPage(shared_tab, site)
