r"""Text of models and people to HTML that can do nothing: no script, picture, link, form or request, nothing hidden.

Markdown is rendered on the server and only the tags in ``TAGS`` come out, so that an answer *about* HTML is read as it
was written instead of being rendered or swallowed. What the writer put there stays readable:

1. HTML and entities (``<script>``, ``&lt;``) are shown as they were typed. There is no maths: ``$x$`` stays ``$x$``.
2. A link is its text followed by its address; pictures and reference definitions are shown as their Markdown.
3. Characters that nobody sees (bidirectional controls, zero-width characters, control characters, halves of surrogate
   pairs) are shown as ``U+202E``, except where writing needs them; see ``_NEEDED``.
4. What Markdown itself leaves out (marks such as ``*``, cells beyond the columns of a table) shows with ``raw=True``.

Lines stay lines (a poem is not one paragraph), list items keep their numbers, and each paragraph finds its own
direction (``dir="auto"``).

``gr.HTML`` (read in Gradio 6.31 and tried in Chromium,
``tests/annotation_ui/web/test_safe_html.py``) compiles its ``html_template`` with Handlebars, evaluates the
outcome as a JavaScript template string in which the value is a variable, and sets ``innerHTML``. With the default
template, ``${value}``, the value is neither compiled nor evaluated:
``{{value}}`` and ``${alert(1)}`` in it do nothing. Two things do:

* A template with ``{{value}}`` puts the value into the *source* of that string: ``${alert(1)}`` in an answer then runs,
  and a backtick breaks the pane. So the template has to stay ``${value}``.
* In every property called ``value``, Gradio looks for ``__i18n__{"key": "..."}`` and puts a translation there.

So ``$ { } ` \`` leave here as entities, which only the parser of ``innerHTML`` turns back: neither finds anything.
``gr.HTML`` cleans nothing: give it only what these functions return, and ``js_on_load=None``. It evaluates templates
with ``new Function``, so a content security policy has to allow ``unsafe-eval``.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

TAGS = frozenset(
    "blockquote br code div em h1 h2 h3 h4 h5 h6 hr li ol p pre s span strong table tbody td th thead tr ul".split()
)
"""Every tag that can come out."""
MAX_NESTING = 60
"""Levels of lists in quotes in lists. Markdown parsers drop what is deeper, so a text that is deeper is shown raw."""

_ENTITIES = str.maketrans({character: f"&#{ord(character)};" for character in "${}`\\"})
# Unicode's Default_Ignorable_Code_Point, control characters, line and paragraph separators, surrogates.
_UNSEEN = (
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    r"\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3"
    r"\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_SYMBOL = r"[\xa9\xae\u203c-\u3299\U0001f000-\U0001faff]"
# Arabic to Sinhala, Tibetan and Burmese, Khmer and Mongolian: a joiner changes the shape of the letters beside it.
_JOINING = r"[\u0600-\u0dff\u0f00-\u109f\u1780-\u18af]"
_NEEDED = "|".join(
    (
        rf"(?<={_SYMBOL})\ufe0f?\u200d(?={_SYMBOL})",  # a family is people held together by joiners
        rf"(?<={_SYMBOL})[\ufe0e\ufe0f]",  # a symbol as text or as a picture
        r"(?<=[#*0-9])\ufe0f(?=\u20e3)",  # keycaps
        r"(?<=\U0001f3f4)\U000e0067\U000e0062[\U000e0061-\U000e007a]{3}\U000e007f",  # flags of England, Scotland, Wales
        rf"(?<={_JOINING})[\u200c\u200d](?={_JOINING})",
        r"(?<=[\u3400-\u9fff])[\U000e0100-\U000e01ef]",  # variants of Han characters
    )
)
_ANY_UNSEEN = re.compile(_UNSEEN)
_NEEDED_OR_UNSEEN = re.compile(f"(?P<needed>{_NEEDED})|{_UNSEEN}")


def answer_html(text: str, *, raw: bool = False) -> str:
    """A model's answer as inert HTML.

    Args:
        text: the answer, of any content.
        raw: show every character as it was written, instead of rendering Markdown.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _as_written(text) if raw else _as_markdown(text, line_breaks=True)


def prompt_html(text: str) -> str:
    """What a person wrote, as inert HTML. It looks like an answer, so that the dialogue is of one kind."""
    return answer_html(text)


def guidelines_html(markdown: str) -> str:
    """The project's own Markdown as HTML: the lines of a paragraph flow together, all else is as in answers."""
    return _as_markdown(markdown, line_breaks=False)


class _Parser(MarkdownIt):
    """Keeps the addresses of links as they were written; nothing follows them."""

    def normalizeLink(self, url: str) -> str:
        return url

    def normalizeLinkText(self, link: str) -> str:
        return link

    def validateLink(self, url: str) -> bool:
        return True


class _Renderer(RendererHTML):
    """Code with its language above it, always from left to right."""

    def fence(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        language = html.escape(tokens[idx].info.strip())
        caption = f'<div class="language">{language}</div>' if language else ""
        return caption + self.code_block(tokens, idx, options, env)

    def code_block(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return f'<pre dir="ltr"><code>{html.escape(tokens[idx].content)}</code></pre>\n'


def _as_markdown(text: str, *, line_breaks: bool) -> str:
    """Markdown as inert HTML; as it was written if the parser would drop a part of it.

    A new parser costs 0.2 ms; a shared one would fill its caches from several threads at once.
    """
    options = {"html": False, "breaks": line_breaks, "maxNesting": MAX_NESTING}
    parser = _Parser("commonmark", options, renderer_cls=_Renderer)
    parser.enable(["table", "strikethrough"]).disable(["entity", "reference"])
    tokens = parser.parse(text)
    if any(token.level >= MAX_NESTING - 1 for token in tokens):
        return _as_written(text)
    for token in tokens:
        if token.level == 0 and token.nesting == 1:
            token.attrSet("dir", "auto")
        if token.type == "list_item_open" and token.info:
            token.attrSet("value", token.info)
        token.children = _without_links(token.children or [])
    return f'<div class="text-body">{_inert(parser.renderer.render(tokens, parser.options, {}))}</div>'


def _as_written(text: str) -> str:
    # The parser of HTML drops a line feed that comes first in a pre.
    return f'<pre class="text-body raw" dir="auto">\n{_inert(html.escape(text))}</pre>'


def _without_links(tokens: Sequence[Token]) -> list[Token]:
    """Inline tokens with text in the place of links and pictures; code takes no part in finding the direction."""
    kept: list[Token] = []
    address, start = "", 0
    for token in tokens:
        if token.type == "link_open":
            address, start = _address(token, "href"), len(kept)
        elif token.type == "link_close":
            if address != "".join(part.content for part in kept[start:]):
                kept.append(_text(f" ({address})"))
        elif token.type == "image":
            kept.append(_text(f"![{token.content}]({_address(token, 'src')})"))
        else:
            if token.type == "code_inline":
                token.attrSet("dir", "auto")
            kept.append(token)
    return kept


def _address(token: Token, name: str) -> str:
    title = token.attrGet("title")
    return f"{token.attrGet(name)}" + (f' "{title}"' if title else "")


def _text(content: str) -> Token:
    return Token("text", "", 0, content=content)


def _inert(markup: str) -> str:
    """Unseen characters made visible, and those that mean something to a template written as entities."""
    markup = markup.translate(_ENTITIES)
    return _NEEDED_OR_UNSEEN.sub(_seen, markup) if _ANY_UNSEEN.search(markup) else markup


def _seen(match: re.Match[str]) -> str:
    if match["needed"]:
        return match[0]
    return f'<span class="unseen">U+{ord(match[0]):04X}</span>'
