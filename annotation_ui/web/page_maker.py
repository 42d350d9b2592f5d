"""The pieces of HTML that are made anew from each view. Each is a pure function, and none lets text through unescaped.

Text of models, people and guidelines goes through ``annotation_ui.web.safe_html``, everything else through ``escape``.
There are no variants, seeds or slots in a view, so there are none in these pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from alignment.data.records import Message
from annotation_ui import texts
from annotation_ui.desk.view import Pane, PastJudgment, ProjectChoice, View
from annotation_ui.vocabulary import Side
from annotation_ui.web.safe_html import answer_html, guidelines_html, prompt_html

CONTENT_WARNING = Path(__file__).parents[1] / "guidelines" / "content_warning.md"
LETTERS: dict[Side, str] = {"left": "A", "right": "B"}
_LOGO = (
    '<svg viewBox="0 0 24 24" width="22" height="22" aria-hidden="true"><circle cx="8.5" cy="12" r="6.5"/>'
    '<circle cx="15.5" cy="12" r="6.5"/></svg>'
)
_SUN_AND_MOON = (
    '<svg viewBox="0 0 24 24" class="moon" aria-hidden="true">'
    '<path d="M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z"/></svg>'
    '<svg viewBox="0 0 24 24" class="sun" aria-hidden="true"><circle cx="12" cy="12" r="4.2"/>'
    '<path d="M12 2v2.5M12 19.5V22M2 12h2.5M19.5 12H22M5 5l1.7 1.7M17.3 17.3 19 19M19 5l-1.7 1.7M6.7 17.3 5 19"/></svg>'
)
_IN_STATE = (
    "project dimension phase kind comparison_id submission_id asks_safety may_prompt may_fetch undoable editing "
    "turn max_turns max_prompt_chars user guidelines_sha256"
).split()


def page_state(view: View) -> dict[str, Any]:
    """What the script of the page has to know of a view; all of it may be seen by the annotator."""
    state = {name: getattr(view, name) for name in _IN_STATE}
    return {**state, "draft": asdict(view.draft), "progress": asdict(view.progress)}


def part_keys(view: View) -> dict[str, str]:
    """Names what the conversation and the answers show; empty where they can change under the same comparison."""
    complete = view.phase in ("open", "judged", "explained") and view.comparison_id is not None
    scene_key = f"{view.comparison_id} {view.editing} {view.phase == 'explained'}"
    return {"scene": scene_key if complete else "", "answers": str(view.comparison_id) if complete else ""}


def key(name: str) -> str:
    """A key as it is printed on a button."""
    return f"<kbd>{escape(name)}</kbd>"


def button(do: str, label: str, *, shortcut: str = "", look: str = "", **attributes: str) -> str:
    """A button; ``do`` is what the script does when it is pressed."""
    extra = "".join(f' {name.replace("_", "-")}="{escape(value)}"' for name, value in attributes.items())
    shown = f"{escape(label)} {key(shortcut)}" if shortcut else escape(label)
    return f'<button type="button" class="button {look}" data-do="{do}"{extra}>{shown}</button>'


# -- the bar at the top -----------------------------------------------------------------------------------------------


def top(view: View) -> str:
    """Brand, projects, the way out, progress, who is signed in."""
    dimension = texts.DIMENSION_NAMES[view.dimension]
    pill = f'<span class="pill for-{view.dimension}">{dimension}</span>' if dimension != _title(view) else ""
    way_out = button("leave", texts.LEAVE, look="quiet danger") if view.dimension == "safety" else ""
    links = "".join(f'<a href="{href}">{label}</a>' for href, label in _links(view.role))
    signed_in = escape(texts.SIGNED_IN.format(user=view.user))
    theme = f'<button type="button" class="button quiet icon theme" data-do="theme" {_labelled(texts.THEME)}>'
    return (
        f'<header class="top"><span class="brand">{_LOGO}{texts.BRAND}</span>{_project_choice(view)}{pill}{way_out}'
        f'<span class="space"></span>{_progress(view)}<nav>{links}</nav>'
        f'<span class="account" title="{signed_in}">{escape(view.user)}</span>'
        + button("guidelines", texts.GUIDELINES, shortcut="G", look="quiet")
        + button("help", texts.SHORTCUTS_TITLE, shortcut="?", look="quiet")
        + f"{theme}{_SUN_AND_MOON}</button>"
        + button("logout", texts.SIGN_OUT, look="quiet")
        + "</header>"
    )


def _labelled(text: str) -> str:
    return f'title="{escape(text)}" aria-label="{escape(text)}"'


def _links(role: str) -> list[tuple[str, str]]:
    links = {"reviewer": ["review"], "admin": ["review", "admin"]}.get(role, [])
    return [(f"/{name}", name.capitalize()) for name in links]


def _title(view: View) -> str:
    return next(choice.title for choice in view.projects if choice.name == view.project)


def _project_choice(view: View) -> str:
    if len(view.projects) == 1:
        return f'<span class="project">{escape(_title(view))}</span>'
    options = "".join(_project_option(choice, view.project) for choice in view.projects)
    return f'<select class="project" data-change="project" aria-label="Project">{options}</select>'


def _project_option(choice: ProjectChoice, chosen: str) -> str:
    selected = " selected" if choice.name == chosen else ""
    return f'<option value="{escape(choice.name)}"{selected}>{escape(choice.title)}</option>'


def _progress(view: View) -> str:
    today = texts.PROGRESS.format(today=view.progress.today)
    more = texts.PROGRESS_MORE.format(total=view.progress.total, left=view.progress.left_in_queue)
    return f'<span id="progress" class="progress" title="{escape(more)}">{escape(today)}</span>'


# -- what is above the answers ----------------------------------------------------------------------------------------


def scene(view: View) -> str:
    """Banner, conversation and prompt; or the card that stands in the middle when there is nothing to read."""
    if view.phase in ("warning", "idle", "failed", "empty"):
        return _banner(view) + _card(view)
    return _banner(view) + _conversation(view) + _explanation(view)


def _banner(view: View) -> str:
    if view.editing:
        return f'<p class="banner editing">{escape(texts.EDITING)}</p>'
    if view.kind == "work":
        return ""
    place = f", {escape(view.place)}" if view.place else ""
    return f'<p class="banner"><b>{texts.KIND_NAMES[view.kind]}{place}</b> {escape(texts.KIND_HINTS[view.kind])}</p>'


def _conversation(view: View) -> str:
    """The turn before the prompt is open, earlier ones are folded."""
    last = view.past[-2:] if len(view.past) >= 2 else ()
    earlier = view.past[: len(view.past) - len(last)]
    folded = ""
    if earlier:
        summary = f"<summary>{escape(texts.EARLIER)} <span>({len(earlier)})</span></summary>"
        folded = f'<details class="earlier">{summary}<div class="turns">{_turns(earlier)}</div></details>'
    turn = texts.TURN.format(turn=view.turn, max_turns=view.max_turns) if view.max_turns > 1 else ""
    before = f'<div class="past">{folded}<div class="turns">{_turns(last)}</div></div>' if view.past else ""
    now = (
        f'<div class="turn user now" data-part="prompt"><span class="who">{texts.SPEAKERS["user"]}'
        f'<small>{turn}</small></span><div class="said" tabindex="0">{prompt_html(view.prompt)}</div></div>'
    )
    return f'<section class="talk" aria-label="Conversation">{before}{now}</section>'


def _turns(messages: Sequence[Message]) -> str:
    return "".join(
        f'<div class="turn {message.role}"><span class="who">{texts.SPEAKERS[message.role]}</span>'
        f'<div class="said">{_said(message)}</div></div>'
        for message in messages
    )


def _said(message: Message) -> str:
    return answer_html(message.content) if message.role == "assistant" else prompt_html(message.content)


def _explanation(view: View) -> str:
    if view.phase != "explained":
        return ""
    go_on = button("next", texts.NEXT, shortcut="Enter", look="primary")
    told = f"<h2>{escape(texts.EXPLAINED)}</h2>{guidelines_html(view.explanation)}"
    return f'<section class="explanation" aria-live="polite"><div>{told}</div>{go_on}</section>'


def _card(view: View) -> str:
    title, body, buttons = _card_parts(view)
    heading = f"<h1>{escape(title)}</h1>" if title else ""
    return f'<section class="card {view.phase}">{heading}{body}<p class="buttons">{buttons}</p></section>'


def _card_parts(view: View) -> tuple[str, str, str]:
    """Title, body and buttons of the card."""
    if view.phase == "warning":
        way_out = button("leave", texts.LEAVE, look="danger")
        return "", _warning_html(), button("accept", texts.ACCEPT, shortcut="Enter", look="primary") + way_out
    train = button("train", texts.TRAIN)
    if view.phase == "failed":
        body = _paragraph(view.message or texts.FAILED) + _paragraph(view.prompt, look="quote")
        buttons = button("retry", texts.RETRY, shortcut="Enter", look="primary")
        return texts.CARD_TITLES["failed"], body, buttons + button("pass-over", texts.PASS_OVER, shortcut="S")
    label = texts.LOOK_AGAIN if view.phase == "empty" else texts.FETCH
    fetch = button("fetch", label, shortcut="N", look="primary") if view.may_fetch else ""
    if view.phase == "empty":
        return texts.CARD_TITLES["empty"], _paragraph(texts.EMPTY), fetch + train
    title, hint = _idle_texts(view)
    return title, _paragraph(view.message or hint), fetch + train


def _idle_texts(view: View) -> tuple[str, str]:
    if view.may_fetch and view.may_prompt:
        return texts.IDLE_BOTH
    if view.may_fetch:
        return texts.IDLE_FETCH
    return texts.IDLE_PROMPT if view.may_prompt else (texts.IDLE_BLOCKED, "")


def _paragraph(text: str, look: str = "") -> str:
    return f'<p class="{look}">{escape(text)}</p>' if text else ""


@cache
def _warning_html() -> str:
    return guidelines_html(CONTENT_WARNING.read_text(encoding="utf-8"))


# -- the answers ------------------------------------------------------------------------------------------------------


def answer_pane(side: Side, answer: Pane | None) -> str:
    """One answer, rendered and as raw text; the script shows one of the two."""
    letter = LETTERS[side]
    if answer is None:
        answer = Pane("", done=False)
    name = texts.ANSWER.format(letter=letter)
    badge = f'<span class="badge" title="{escape(texts.CUT_OFF_HINT)}">{texts.CUT_OFF}</span>' if answer.cut_off else ""
    writing = "" if answer.done else f'<span class="writing">{texts.WRITING}<i></i></span>'
    label = f'<span class="when-rendered">{texts.RAW}</span><span class="when-raw">{texts.RENDERED}</span>'
    raw = f'<button type="button" class="button quiet" data-do="raw">{label} {key("T")}</button>'
    return (
        f'<article class="pane {side}" aria-label="{name}"><header><h2>{name}</h2>{badge}{writing}'
        f'<span class="space"></span>{raw}</header>'
        f'<div class="body rendered" tabindex="0">{_answer_body(answer, raw=False)}</div>'
        f'<div class="body raw" tabindex="0">{_answer_body(answer, raw=True)}</div></article>'
    )


def _answer_body(answer: Pane, *, raw: bool) -> str:
    if not answer.text.strip():
        return f'<p class="none">{escape(texts.NO_TEXT)}</p>' if answer.done else '<p class="waiting"></p>'
    return answer_html(answer.text, raw=raw)


# -- the panel at the side --------------------------------------------------------------------------------------------


def guidelines(view: View) -> str:
    """The guidelines of the project."""
    train = button("train", texts.TRAIN, look="quiet")
    head = f"<header><h2>{escape(texts.GUIDELINES)}</h2>{train}</header>"
    body = f'<div class="scroll" tabindex="0">{_guidelines_html(view.guidelines)}</div>'
    return f'<section class="guide">{head}{body}</section>'


@cache
def _guidelines_html(markdown: str) -> str:
    return guidelines_html(markdown)


def history(entries: Sequence[PastJudgment]) -> str:
    """The annotator's own last judgments, with what can be done about them."""
    lines = "".join(_past_judgment(entry) for entry in entries)
    body = f"<ol>{lines}</ol>" if entries else f'<p class="none">{escape(texts.NO_HISTORY)}</p>'
    return f'<section class="history"><header><h2>{escape(texts.HISTORY)}</h2></header>{body}</section>'


def _past_judgment(entry: PastJudgment) -> str:
    about = {"data_comparison": entry.comparison_id, "look": "small"}
    prompt, said = escape(entry.prompt), escape(entry.said)
    offered = (("edit", texts.EDIT, entry.can_edit), ("retract", texts.WITHDRAW, entry.can_withdraw))
    acts = "".join(
        button(name, label, aria_label=f"{label}: {entry.prompt}", **about) for name, label, may in offered if may
    )
    at = escape(entry.judged_at)
    return (
        f'<li><time datetime="{at}">{at[11:16]}</time><span class="asked" title="{prompt}">{prompt}</span>'
        f'<span class="did" title="{said}">{said}</span><span class="acts">{acts}</span></li>'
    )
