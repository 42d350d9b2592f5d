"""What can be measured of a page's looks: contrast, text that is cut off, rings around what has the focus.

The measures are in ``annotation_looks.js``. Each looks at what is visible in a page now and says what is wrong, in
words; nothing said is good.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from playwright.sync_api import Page, ViewportSize

MIN_CONTRAST, MIN_RING_CONTRAST = 4.5, 3.0
"""Of text, and of what shows the focus (WCAG 2.2, 1.4.3 and 1.4.11)."""
Theme = Literal["light", "dark"]
SIZES = ((1440, 900), (1280, 800), (1024, 768))
NARROWEST: ViewportSize = {"width": 640, "height": 900}
"""Half a screen."""
WIDE: ViewportSize = {"width": 1440, "height": 900}
_LOOKS = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")


def _ask(page: Page, expression: str, *arguments: Any) -> Any:
    """Evaluate an expression in which ``looks`` are the measures, and ``given`` the arguments."""
    return page.evaluate(f"async (given) => {{ const looks = {_LOOKS}; return {expression} }}", arguments)


def contrast(page: Page, one: str, other: str) -> float:
    """Contrast ratio of two colours in CSS's computed notation."""
    return float(_ask(page, "looks.contrast(...given)", one, other))


def pale_texts(page: Page) -> list[str]:
    """Visible text of too little contrast."""
    return list(_ask(page, "looks.pale(...given)", MIN_CONTRAST))


def cut_off_texts(page: Page) -> list[str]:
    """Visible text that cannot be read whole, not even by scrolling a part of the page."""
    return list(_ask(page, "looks.cutOff()"))


def faults(page: Page, whole: Iterable[str] = ()) -> list[str]:
    """What is wrong at both sizes and in both themes, for somebody who wants no motion; narrower, text has to fit.

    Args:
        page: to be looked at.
        whole: selectors of what has to be wholly in the window, without scrolling.
    """
    wrong: list[str] = []
    themes: tuple[Theme, Theme] = ("light", "dark")
    for theme in themes:
        page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        for width, height in SIZES:
            page.set_viewport_size({"width": width, "height": height})
            narrow = (width, height) == SIZES[-1]
            look = "looks.cutOff(), looks.moving(), given[2].map(looks.outside), given[1] ? looks.pale(given[1]) : []"
            given = (theme, 0, []) if narrow else (theme, MIN_CONTRAST, list(whole))
            found = _ask(page, f"looks.drawn(given[0]).then(() => [{look}].flat())", *given)
            wrong += [f"{width} {theme}: {what}" for what in found if what]
    return wrong


def faults_now(page: Page, *whole: str) -> list[str]:
    """What cannot be read at the present size, and which of some selectors are not wholly in the window."""
    found = _ask(page, "[looks.cutOff(), given.map(looks.outside)].flat()", *whole)
    return [what for what in found if what]


def tab_through(page: Page, at_most: int = 120) -> dict[str, str]:
    """Press Tab from the beginning until the focus leaves the page: what had it -> what is wrong with its ring."""
    _ask(page, "looks.toTheTop()")
    found: dict[str, str] = {}
    for _ in range(at_most):
        page.keyboard.press("Tab")
        stop = _ask(page, "looks.ring(...given)", MIN_RING_CONTRAST)
        if stop is None or stop[0] in found:
            return found
        found[stop[0]] = stop[1]
    raise AssertionError(f"the focus does not come to an end after {at_most} stops")


# -- how long one waits -----------------------------------------------------------------------------------------------

NOTE_SHOWN = """
new MutationObserver(() => {
  if (document.documentElement.dataset.phase) window.shownAt ??= performance.now();
}).observe(document, { attributes: true, subtree: true, attributeFilter: ["data-phase"] });
"""
"""Notes when the desk is there; to be run before the page."""


def first_paint_ms(page: Page) -> float:
    """From the start of the navigation to the first content on the screen, as the browser itself noted it.

    The navigation that follows a sign-in starts when the form is sent, so that checking the password is in it.
    """
    paints = "performance.getEntriesByName('first-contentful-paint')"
    page.wait_for_function(f"{paints}.length > 0")
    return float(page.evaluate(f"{paints}[0].startTime"))


def shown_ms(page: Page) -> float:
    """From there to when the desk was ready for a key; needs ``NOTE_SHOWN``."""
    return float(page.evaluate("window.shownAt"))
