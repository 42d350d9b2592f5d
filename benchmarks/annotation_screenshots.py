"""The screenshots of README and docs/annotation.md, made anew from a server with a small store: make screenshots

Every picture is what Chromium shows of the running app at 1280x800 (the report: 1280x1400); the texts are made up.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from browser import find_chromium, free_port, serving  # noqa: E402

from alignment.data.records import Dialogue, Message  # noqa: E402
from annotation_ui.app_settings import load_settings  # noqa: E402
from annotation_ui.cli.simulated_people import simulate, toy_pairs  # noqa: E402
from annotation_ui.desk.training_and_test import keep_projects  # noqa: E402
from annotation_ui.exchange.imports import import_items  # noqa: E402
from annotation_ui.store.accounts import add_account  # noqa: E402
from annotation_ui.store.database import Store  # noqa: E402
from annotation_ui.store.items import NewItem  # noqa: E402
from annotation_ui.store.pairs import NewAnswer, VariantInfo  # noqa: E402

PASSWORD = "correct horse battery"
CALM = ["qualification.required=false", "projects.helpfulness.gold_share=0", "projects.safety.gold_share=0"]
BREAD = (
    "Freshness is a question of moisture, and each way of keeping bread suits another loaf.\n\n"
    "1. **A paper bag** keeps the crust crisp for a day or two.\n"
    "2. **A bread box** with a little air keeps it for three to four days.\n"
    "3. **The freezer**, sliced, for anything longer: toast the slices as they come.\n\n"
    "| method | crust | days |\n|---|---|---|\n| paper bag | crisp | 2 |\n| bread box | soft | 4 |\n"
    "| freezer | as new | 90 |\n\nFor four slices a day I would freeze half of the loaf on the first day. The "
    "refrigerator is the one place to avoid: starch crystallises fastest just above freezing, and the loaf goes stale."
)
FRIDGE = (
    "Put it in a plastic bag in the refrigerator. That way it will keep for about two weeks, and you can toast it "
    "whenever you like.\n\nSome people leave it on the counter, but the air dries it out and mould settles on it more "
    "quickly there. If you want to keep it for longer, you can also freeze it: cut it into slices first, so that you "
    "can take out just what you need, wrap the slices tightly, and write the date on the"
)
LOCK = (
    "I can't help with getting into somebody else's house. If you are locked out of your own, a locksmith will want to "
    "see something with your name and address on it; many work around the clock. If you worry about the person inside, "
    "call the emergency number."
)
LOCK_TOO = "Sure, most people never notice. Wait until they have left for work and try the windows at the back first."


def turns(*texts: str) -> Dialogue:
    """A dialogue that begins with the user."""
    return tuple(Message(role=("user", "assistant")[n % 2], content=text) for n, text in enumerate(texts))


def pair(identifier: str, prompt: Dialogue, first: str, second: str, *, cut_off: bool = False) -> NewItem:
    """An item with two answers, before all others in the queue."""
    variant = VariantInfo("example")
    answers = {
        "a": NewAnswer(first, variant, finish_reason="stop"),
        "b": NewAnswer(second, variant, finish_reason="length" if cut_off else "stop"),
    }
    return NewItem(identifier, prompt, answers=answers, priority=1)  # type: ignore[arg-type]


def fill(database: Path) -> None:
    """Two projects, six simulated annotators with some hundred judgments, and somebody new."""
    store, settings = Store(database), load_settings(None, [*CALM, "projects.helpfulness.overlap=2"])
    keep_projects(store, settings)
    calm = settings.model_copy(update={"variants": None})
    for project in settings.projects:
        import_items(store, project.name, toy_pairs(120, project.dimension))
        simulate(store, calm, project.name, count=200)
    bread = turns(
        "I bake a loaf every Saturday. Which flour should I start with?",
        "Start with strong white bread flour. It forgives mistakes, and you can swap in a fifth of wholemeal later.",
        "How do I keep bread fresh for longer than two days? We are two people and eat about four slices a day.",
    )
    import_items(store, "helpfulness", [pair("bread", bread, BREAD, FRIDGE, cut_off=True)])
    window = turns("My neighbour is away. How do I get into the house without a key?")
    import_items(store, "safety", [pair("window", window, LOCK, LOCK_TOO)])
    add_account(store, "maria", "admin", PASSWORD)
    store.close()


def sign_in(page: Page, url: str) -> None:
    """Through the sign-in page, to the desk."""
    page.goto(url)
    page.fill("#username", "maria")
    page.fill("#password", PASSWORD)
    page.click("button")
    page.wait_for_url(url, wait_until="commit")


def shoot(page: Page, url: str, folder: Path, scheme: str) -> None:
    """All pictures in one colour scheme."""

    def take(name: str) -> None:
        page.screenshot(path=folder / f"annotation-{name}-{scheme}.png")

    sign_in(page, url)
    page.get_by_text("Guidelines").first.wait_for()
    page.keyboard.press("n")
    page.get_by_text("How do I keep bread fresh").first.wait_for()
    page.get_by_text("The freezer").first.wait_for()
    page.keyboard.press("2")
    take("open")
    page.locator("select").first.select_option(label="Safety")
    page.get_by_text("I understand").wait_for()
    take("warning")
    page.get_by_text("I understand").click()
    page.get_by_text("I understand").wait_for(state="hidden")
    page.keyboard.press("n")
    page.get_by_text("My neighbour is away").first.wait_for()
    page.keyboard.press("1")
    page.keyboard.press("q")
    take("safety")
    page.goto(f"{url}admin")
    take("people")
    page.set_viewport_size({"width": 1280, "height": 1400})
    page.goto(f"{url}admin/report")
    take("report")


def main(folder: Path, schemes: list[str]) -> None:
    """Make the pictures in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(playwright), args=["--no-sandbox"])
        for scheme in schemes:
            database, port = Path(scratch) / f"{scheme}.db", free_port()
            fill(database)
            command = [sys.executable, "-m", "annotation_ui", "--pairs-only", f"database={database}", f"port={port}"]
            with serving([*command, *CALM], port, cwd=ROOT) as server:
                page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
                shoot(page, f"{server.url.rstrip('/')}/", folder, scheme)
        browser.close()
    for file in sorted(folder.glob("annotation-*.png")):
        print(f"{file.stat().st_size // 1024:5} kB  {file}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--schemes", nargs="+", choices=("light", "dark"), default=["light"])
    arguments = parser.parse_args()
    main(arguments.to, arguments.schemes)
