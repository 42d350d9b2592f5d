"""How long an annotator looks at nothing after signing in; run alone: python benchmarks/annotation_paint.py

A server serves pairs that were sampled before; each repeat signs in through the form in a browser without any cache.

    first_paint_ms   from sending the form to the first content on the screen (first contentful paint)
    shown_ms         from there to the moment when the desk is drawn and takes keys

Both are medians over the repeats; the slowest repeats are given, too. The last line of the output is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "support"))  # the helpers of the tests

from annotation_fixtures import new_item
from annotation_looks import NOTE_SHOWN, first_paint_ms, shown_ms
from annotation_page import DeskPage
from annotation_server import Models, Site, Visitor, running_site
from browser import FLAGS, Tab, Traffic, find_chromium

PASSWORD = "correct horse battery"


def signed_in(tab: Tab, site: Site, who: Visitor) -> tuple[float, float]:
    """Sign in; returns both times."""
    tab.page.add_init_script(NOTE_SHOWN)
    desk = DeskPage(tab, site)
    desk.sign_in(who.name, PASSWORD)
    desk.wait_for_phase("idle")
    return first_paint_ms(tab.page), shown_ms(tab.page)


def measure(site: Site, repeats: int) -> list[tuple[float, float]]:
    """Sign in as often as that, after once for the server's own first time."""
    from playwright.sync_api import sync_playwright

    who, found = site.person(password=PASSWORD), []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(playwright), args=list(FLAGS))
        for _ in range(1 + repeats):
            context = browser.new_context(viewport={"width": 1440, "height": 900})
            found.append(signed_in(Tab(context.new_page(), context, Traffic()), site, who))
            context.close()
        browser.close()
    return found[1:]


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args(arguments).repeats
    models = Models()
    with tempfile.TemporaryDirectory() as folder:
        with running_site(Path(folder), models, "--pairs-only", people=["somebody"]) as site:
            site.add_items("first", [new_item(f"ask {number}", answered=True) for number in range(10)])
            found = measure(site, repeats)
    models.close()
    row: dict[str, float] = {"repeats": repeats}
    for name, times in zip(("first_paint_ms", "shown_ms"), zip(*found, strict=True), strict=True):
        print(f"{name:<16} median {median(times):6.0f}   slowest {max(times):6.0f}")
        row |= {name: round(median(times), 1), f"slowest_{name}": round(max(times), 1)}
    print(json.dumps(row))


if __name__ == "__main__":
    main(sys.argv[1:])
