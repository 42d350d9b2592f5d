"""What models and people write is read as it was written, does nothing, and has room (checks 8 and 9)."""

from __future__ import annotations

import pytest
from annotation_fixtures import COLOURS
from annotation_page import HISTORY, MODEL_TEXT, NOW, PANES, PAST, RAW, RENDERED, SIDES, DeskPage
from annotation_server import Site

HOSTILE = {
    "script": "<script>window.__pwn=1</script>",
    "handler": '<img src=x onerror="window.__pwn=2">',
    "link": "[click me](javascript:window.__pwn=3) and <a href='javascript:window.__pwn=4'>me</a>",
    "iframe": '<iframe srcdoc="<script>parent.__pwn=5</script>"></iframe>',
    "svg": "<svg onload=window.__pwn=6></svg>",
    "style": "<style>body{display:none}</style>",
    "form": '<form action="/logout"><input name=a><button>go</button></form>',
    "remote picture": '<img src="http://evil.example/a.png">',
    "Markdown picture": "![cat](http://evil.example/cat.png)",
    "template": "{{value}} ${window.__pwn=7} `${window.__pwn=8}`",
}
READ = [
    *(HOSTILE[name] for name in ("script", "handler", "iframe", "svg", "style", "form", "remote picture")),
    "click me (javascript:window.__pwn=3)",
    "<a href='javascript:window.__pwn=4'>me</a>",
    HOSTILE["Markdown picture"],
    "{{value}} ${window.__pwn=7}",
]
DANGEROUS = "img, form, input, iframe, style, script, a, svg, link, object, embed, video, audio, base, meta"


def hostile_answer(slot: str) -> str:
    return f"{COLOURS[slot]}\n\n" + "\n\n".join(HOSTILE.values())  # type: ignore[index]


def test_hostile_text_is_read_and_does_nothing(site: Site, desk: DeskPage) -> None:
    for slot in COLOURS:
        site.models[slot].answer = hostile_answer(slot)
    desk.enter(site.person(), site.project(mode="free", max_turns=3))
    desk.send(HOSTILE["script"] + HOSTILE["handler"]).wait_for_phase("open").judge(1)
    desk.send(HOSTILE["style"] + HOSTILE["remote picture"]).wait_for_phase("open")
    for side in SIDES:
        shown = desk.answer(side)
        assert [text for text in READ if text not in shown] == []
    past = desk.past
    assert [text for text in READ if text not in past] == []
    assert HOSTILE["script"] + HOSTILE["handler"] in past
    assert HOSTILE["style"] + HOSTILE["remote picture"] in desk.prompt
    assert HOSTILE["script"] in desk.text(HISTORY)
    assert desk.find(MODEL_TEXT).count() >= 6
    inside = ", ".join(f"{where} {tag}" for where in MODEL_TEXT.split(", ") for tag in DANGEROUS.split(", "))
    assert desk.find(inside).count() == 0
    for attribute in ("onerror", "onload", "href", "src", "srcdoc", "action"):
        assert desk.find(", ".join(f"{where} [{attribute}]" for where in MODEL_TEXT.split(", "))).count() == 0
    assert desk.page.evaluate("typeof window.__pwn") == "undefined"
    assert desk.find("body").is_visible()
    assert desk.page.evaluate("getComputedStyle(document.body).display") != "none"


def test_raw_text_is_the_same_to_the_letter_and_as_harmless(site: Site, desk: DeskPage) -> None:
    for slot in COLOURS:
        site.models[slot].answer = hostile_answer(slot)
    desk.enter(site.person(), site.project(mode="free")).send("Show me.").wait_for_phase("open").press("t")
    for side in SIDES:
        shown = desk.text(f"{PANES[side]} {RAW}")
        assert [text for text in HOSTILE.values() if text not in shown] == []
        assert not desk.find(f"{PANES[side]} {RENDERED}").is_visible()
    assert desk.page.evaluate("typeof window.__pwn") == "undefined"
    desk.press("t")
    assert desk.find(f"{PANES['left']} {RENDERED}").is_visible()


MARKDOWN = """\
A list:

1. first
2. second
   - inner

| animal | legs |
|---|--:|
| crane | 2 |

```python
def double(x: int) -> int:
    return 2 * x  # a comment that is so long that it does not fit into a pane {wide}
```

שלום עולם, זה טקסט מימין לשמאל

日本語と中文 \N{FAMILY} \N{PARTY POPPER}
"""


@pytest.mark.parametrize("width", [1280, 1024])
def test_everything_renders_and_scrolls_inside_its_pane(site: Site, desk: DeskPage, width: int) -> None:
    markdown = MARKDOWN.replace("{wide}", "x" * 200)
    site.models["a"].answer = "red\n\n" + markdown
    site.models["b"].answer = "blue " + "a long answer " * 1430 + "ends here"
    assert len(site.models["b"].text([])) > 20_000
    desk.page.set_viewport_size({"width": width, "height": 800})
    desk.enter(site.person(), site.project(mode="free")).send("Show everything.").wait_for_phase("open")
    side = {slot: side for side, slot in desk.slots().items()}

    rich = f"{PANES[side['a']]} {RENDERED}"
    for selector, text in {
        "ol > li": "first",
        "ol ul > li": "inner",
        "table th": "animal",
        "table td": "crane",
        "pre code": "def double(x: int) -> int:\n    return 2 * x",
    }.items():
        assert text in desk.find(f"{rich} {selector}").first.inner_text()
    assert "日本語と中文 \N{FAMILY} \N{PARTY POPPER}" in desk.text(rich)
    hebrew = desk.find(f"{rich} p").filter(has_text="שלום")
    assert hebrew.evaluate("one => getComputedStyle(one).direction") == "rtl"

    long = f"{PANES[side['b']]} {RENDERED}"
    assert desk.text(long).strip().endswith("ends here")
    assert desk.find(long).evaluate("one => one.scrollHeight > 5 * one.clientHeight")
    for pane in (rich, long):
        assert desk.find(pane).evaluate("one => one.scrollWidth <= one.clientWidth")
    desk.press("j").wait_for(f"document.querySelector('{long}').scrollTop > 100")
    assert desk.find(f"{rich} pre").evaluate("one => one.scrollWidth > one.clientWidth")
    heights = [desk.find(pane).bounding_box() for pane in PANES.values()]
    assert heights[0] and heights[1] and heights[0]["height"] == heights[1]["height"] > 100
    assert desk.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert desk.page.evaluate("document.body.scrollWidth <= innerWidth")
    assert desk.page.evaluate("scrollY === 0 && document.documentElement.scrollHeight <= innerHeight")


def test_the_conversation_so_far_has_room_for_long_text_too(site: Site, desk: DeskPage) -> None:
    for slot, colour in COLOURS.items():
        site.models[slot].answer = f"{colour} " + "a long answer " * 1430
    desk.page.set_viewport_size({"width": 1280, "height": 800})
    desk.enter(site.person(), site.project(mode="free", max_turns=2)).send("Go. " * 75).wait_for_phase("open").judge(1)
    desk.send("On. " * 75).wait_for_phase("open")
    for where in (PAST, NOW):
        assert desk.find(where).bounding_box()["height"] >= 20  # type: ignore[index]
    assert desk.find(PAST).evaluate("one => one.scrollHeight > one.clientHeight")
    for pane in PANES.values():
        assert desk.find(pane).bounding_box()["height"] >= 110  # type: ignore[index]
