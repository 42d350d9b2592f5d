"""Answers as inert HTML: what comes out as text, and what Chromium makes of it in a Gradio page.

The page is served by this file itself: python tests/annotation_ui/web/test_safe_html.py PORT
"""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest
from browser import OpenPage, Server, Tab, free_port, serving
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_ui.web.safe_html import MAX_NESTING, TAGS, answer_html, guidelines_html, prompt_html

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
PERSIAN = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
HEBREW = "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd"
WALES = "\U0001f3f4\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f"
# What a model may write -> what has to be read in the pane, word for word.
TEXTS: dict[str, tuple[str, list[str]]] = {
    "script": ("<script>window.__pwn=1</script>", ["<script>window.__pwn=1</script>"]),
    "handler": ('a <img src=x onerror="window.__pwn=1"> b', ['<img src=x onerror="window.__pwn=1">']),
    "svg": ("<svg onload=window.__pwn=1><a href=/>q</a></svg>", ["<svg onload=window.__pwn=1>", "</svg>"]),
    "iframe": ('<iframe srcdoc="<script>parent.__pwn=1</script>">', ["<iframe srcdoc="]),
    "style": ("<style>body{display:none}</style>", ["<style>body{display:none}</style>"]),
    "form": ('<form action="/x"><input name=a><button>go</button></form>', ["<form action=", "<button>go</button>"]),
    "remote picture": ('<img src="http://example.com/a.png">', ['<img src="http://example.com/a.png">']),
    "Markdown picture": ("![cat](http://example.com/cat.png)", ["![cat](http://example.com/cat.png)"]),
    "bad link": ("[click](javascript:window.__pwn=1)", ["click (javascript:window.__pwn=1)"]),
    "links": (
        '[docs](http://example.com/\u00fc "t") <http://a.b>',
        ['docs (http://example.com/\u00fc "t") http://a.b'],
    ),
    "closing tags": ("</p></div></div></body> after", ["</p></div></div></body> after"]),
    "entities": ("&lt;b&gt; &amp;amp; &#x3c;", ["&lt;b&gt; &amp;amp; &#x3c;"]),
    "templates": (
        "{{value}} {{#each value}} {{{value}}} ${window.__pwn=1} \\` `${window.__pwn=1}`",
        ["{{value}} {{#each value}} {{{value}}} ${window.__pwn=1}"],
    ),
    "backticks": ("a ` b ``` c \\\\n ${", ["a ` b ``` c \\n ${"]),
    "translation": ('__i18n__{"key": "common.submit"}', ['i18n{"key": "common.submit"}']),
    "code": ("```html\n<b>{x}</b>\n\n  y = `a`\n```", ["html", "<b>{x}</b>\n\n  y = `a`"]),
    "code of no language": (
        "```<script>window.__pwn=1</script>\n<img>\n```",
        ["<script>window.__pwn=1</script>", "<img>"],
    ),
    "table": ("| a | b |\n|---|--:|\n| `x` | <i> |", ["a\tb", "x\t<i>"]),
    "list": ("3. three\n   - inner\n7. seven", ["three", "inner", "seven"]),
    "lines": ("roses are red\nviolets are blue", ["roses are red\nviolets are blue"]),
    "right to left": (f"{HEBREW} `abc` {HEBREW}", [HEBREW]),
    "emoji and CJK": (f"{FAMILY}{WALES} \u65e5\u672c\u8a9e", [f"{FAMILY}{WALES} \u65e5\u672c\u8a9e"]),
    "unseen": ("pay\u202eload \u200bx", ["payU+202Eload U+200Bx"]),
    "long": ("word " * 3999 + "last!", ["word last!"]),
}
NAMES = list(TEXTS)


class Outline(HTMLParser):
    """The tags, attributes and text of some HTML."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name if name != "style" else f"style={value}" for name, value in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


HARMLESS = {"class", "dir", "start", "value"} | {f"style=text-align:{side}" for side in ("left", "center", "right")}


def read(markup: str) -> str:
    return Outline(markup).text


MARKS = ["\n", "\n\n", "    ", *"> |- |1. |# |--|**|~~|`|```|<|[|](|)|!|&|\x00".split("|"), "|"]
FRAGMENTS = st.sampled_from([*MARKS, *(text for text, _ in TEXTS.values() if len(text) < 100)])


@given(st.lists(FRAGMENTS | st.text(max_size=5), max_size=12).map("".join))
@settings(max_examples=150, deadline=None)
def test_nothing_but_harmless_tags_comes_out(text: str) -> None:
    for markup in (answer_html(text), answer_html(text, raw=True), prompt_html(text), guidelines_html(text)):
        outline = Outline(markup)
        assert outline.tags <= TAGS
        assert outline.attributes <= HARMLESS
        assert not set("${}`\\") & set(markup)
        markup.encode()


@given(st.text(st.characters(exclude_categories=("C", "Z", "M", "Lo")) | st.sampled_from(" \n\t<>&\"'`{}$\\")))
def test_raw_shows_every_character(text: str) -> None:
    assert read(answer_html(text, raw=True)) == "\n" + text


def test_raw_keeps_lines_however_they_end() -> None:
    assert read(answer_html("\n a\r\nb\rc", raw=True)) == "\n\n a\nb\nc"


def test_every_invisible_character_is_named() -> None:
    """By the categories of Unicode, without the Arabic and other signs of category Cf that have a shape."""
    shaped = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD, *range(0x13430, 0x13460)}
    unseen = [
        code
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) in ("Cc", "Cf", "Cs", "Zl", "Zp") and code not in shaped | {9, 10, 13}
    ]
    assert len(unseen) > 2000
    text = "".join(f"a{chr(code)}b" for code in unseen)
    assert read(answer_html(text, raw=True)) == "\n" + "".join(f"aU+{code:04X}b" for code in unseen)


@pytest.mark.parametrize(
    "needed",
    [FAMILY, WALES, PERSIAN, "1\ufe0f\u20e3", "\u2764\ufe0f\u200d\U0001f525", "\u845b\U000e0100", "\u2764\ufe0e"],
)
def test_what_writing_needs_stays(needed: str) -> None:
    assert read(answer_html(f"a {needed} b")).strip() == f"a {needed} b"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("pass\u200dword", "passU+200Dword"),
        ("a\ufe0f", "aU+FE0F"),
        (f"{FAMILY}\u200d", f"{FAMILY}U+200D"),
        ("\U0001f3f4\U000e0068\U000e0069", "\U0001f3f4U+E0068U+E0069"),
        ("half \ud83d", "half U+D83D"),
    ],
)
def test_the_same_characters_elsewhere_are_named(text: str, shown: str) -> None:
    assert read(answer_html(text)).strip() == shown


@pytest.mark.parametrize("name", NAMES)
def test_what_was_written_is_read(name: str) -> None:
    text, expected = TEXTS[name]
    # Cells are side by side in a browser only, and line feeds around blocks are the markup's.
    shown = re.sub(r"\n+", "\n", read(answer_html(text)))
    for piece in expected:
        assert re.sub(r"\n+", "\n", piece.replace("\t", "\n")) in shown


def test_links_and_reference_definitions_keep_their_address() -> None:
    assert read(answer_html("[![a](b)](c)\n\n[r][1]\n\n[1]: http://x")) == "![a](b) (c)\n[r][1]\n[1]: http://x\n"
    assert read(answer_html("[http://x](http://x)")).strip() == "http://x"


def test_markup_of_blocks() -> None:
    assert '<ol start="3" dir="auto">\n<li value="3">three' in answer_html(TEXTS["list"][0])
    assert '<li value="7">seven' in answer_html(TEXTS["list"][0])
    assert '<div class="language">html</div><pre dir="ltr"><code>&lt;b&gt;' in answer_html(TEXTS["code"][0])
    assert "red<br />\nviolets" in answer_html(TEXTS["lines"][0])
    assert "red\nviolets" in guidelines_html(TEXTS["lines"][0])
    assert {"table", "th", "td", "code"} <= Outline(answer_html(TEXTS["table"][0])).tags


def test_what_is_too_deep_for_markdown_is_shown_as_it_was_written() -> None:
    deep = "> " * MAX_NESTING + "end"
    assert "end" in read(answer_html("> " * (MAX_NESTING - 2) + "end"))
    assert read(answer_html(deep)) == "\n" + deep
    assert "end" in read(guidelines_html("- " * MAX_NESTING + "end"))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    port = free_port()
    same_imports = {"PYTHONPATH": os.pathsep.join(sys.path)}
    with serving([sys.executable, __file__, str(port)], port, env=same_imports) as running:
        yield running


@pytest.fixture
def tab(server: Server, open_page: OpenPage) -> Tab:
    tab = open_page(server.url)
    tab.page.locator("#template .text-body").wait_for()
    return tab


FIND_TAGS = "panes => panes.flatMap(pane => [...pane.querySelectorAll('*')].map(one => one.tagName.toLowerCase()))"


def check_panes(tab: Tab, expected: dict[str, list[str]]) -> None:
    """Each pane shows its text, holds nothing but harmless tags, and nothing ran or was asked for."""
    for pane, pieces in expected.items():
        shown = tab.page.locator(f"{pane} .text-body").inner_text()
        for piece in pieces:
            assert piece in shown, pane
    assert set(tab.page.locator(".text-body").evaluate_all(FIND_TAGS)) <= TAGS
    assert tab.page.evaluate("typeof window.__pwn") == "undefined"
    assert tab.page.locator("body").is_visible()
    assert tab.traffic.problems == []


def test_panes_show_every_text_and_nothing_happens(tab: Tab) -> None:
    check_panes(tab, {f"#pane-{i}": TEXTS[name][1] for i, name in enumerate(NAMES)})
    unseen = {0x202E: "U+202E", 0x200B: "U+200B"}
    check_panes(tab, {f"#raw-{i}": [TEXTS[name][0].translate(unseen)] for i, name in enumerate(NAMES)})


def test_a_pane_that_is_filled_again_shows_the_new_text(tab: Tab) -> None:
    """Gradio patches what is there instead of setting it anew."""
    tab.page.locator("#next").click()
    last = len(NAMES) - 1
    tab.page.locator(f"#pane-{last}", has_text="window.__pwn=1").wait_for()
    check_panes(tab, {f"#pane-{i}": TEXTS[NAMES[(i + 1) % len(NAMES)]][1] for i in range(len(NAMES))})


def test_even_a_wrong_template_executes_nothing(tab: Tab) -> None:
    check_panes(tab, {"#template": TEXTS["templates"][1]})


def test_paragraphs_find_their_direction(tab: Tab) -> None:
    def direction(selector: str) -> str:
        return str(tab.page.locator(selector).evaluate("element => getComputedStyle(element).direction"))

    right_to_left, code = NAMES.index("right to left"), NAMES.index("code")
    assert direction(f"#pane-{right_to_left} p") == "rtl"
    assert direction(f"#pane-{right_to_left} code") == "ltr"
    assert direction(f"#pane-{code} pre") == "ltr"


def serve(port: int) -> None:
    """A page with a pane for each text, rendered and raw, and a button that puts the next text into each pane."""
    import gradio as gr

    def pane(markup: str, name: str, template: str = "${value}") -> gr.HTML:
        return gr.HTML(markup, elem_id=name, html_template=template, js_on_load=None, apply_default_css=False)

    rendered = [answer_html(text) for text, _ in TEXTS.values()]
    with gr.Blocks(analytics_enabled=False) as page:
        panes = [pane(markup, f"pane-{i}") for i, markup in enumerate(rendered)]
        for i, (text, _) in enumerate(TEXTS.values()):
            pane(answer_html(text, raw=True), f"raw-{i}")
        pane(answer_html(TEXTS["templates"][0]), "template", template="{{{value}}}")
        gr.Button("Next", elem_id="next").click(lambda: rendered[1:] + rendered[:1], None, panes)
    page.launch(server_name="127.0.0.1", server_port=port, quiet=True, ssr_mode=False, run_history=False)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
