"""Where everything stands on the page: the parts that change with the view, and the ones that never do.

The page is one screen without scrolling: a bar at the top, the conversation, two answers of equal height, the judging
bar, and a panel at the side. Only ``PageComponents`` are ever sent again; prompt box and judging bar are drawn once and switched
by ``assets/page.js``, so that nothing typed is lost and a saved judgment costs a few hundred bytes.

``wire`` shows nothing. It carries the state of the page to the script, and the script's requests to the handlers:
Gradio runs ``js_on_load`` once, with ``trigger`` to raise events and ``watch`` to hear of new values. Answers that are
being written come by ``stream``: none of its many values can take the place of a state.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import gradio as gr

from alignment.data.records import GRADES
from annotation_ui import texts
from annotation_ui.store.judgments import MAX_NOTE_CHARS
from annotation_ui.vocabulary import SKIP_REASONS, meaning_of
from annotation_ui.web.page_maker import answer_pane, button, key


@dataclass(frozen=True)
class PageComponents:
    """The components that are sent anew: ``wire`` and ``stream`` carry data, the others are HTML."""

    wire: gr.HTML
    stream: gr.HTML
    scene: gr.HTML
    left: gr.HTML
    right: gr.HTML
    history: gr.HTML
    top: gr.HTML
    guidelines: gr.HTML

    @property
    def desk(self) -> list[gr.HTML]:
        """What each action changes."""
        return [self.wire, self.scene, self.left, self.right, self.history]

    @property
    def everything(self) -> list[gr.HTML]:
        """With what changes only from project to project."""
        return [*self.desk, self.top, self.guidelines]


def event_name(action: str) -> str:
    """The event that the script raises for an action. ``gr.HTML`` knows only events named in its ``js_on_load``."""
    return f"desk_{action}"


def lay_out(actions: Sequence[str]) -> PageComponents:
    """Put the components on the page; to be called within ``gr.Blocks``."""
    names = json.dumps([event_name(action) for action in actions])
    wire = _data("wire", f"tandem.attach({names}, props, trigger, watch)")
    stream = _data("stream", "tandem.listen(props, watch)")
    top = _html("top")
    with gr.Row(elem_id="room"):
        with gr.Column(elem_id="work"):
            scene = _html("scene")
            with gr.Row(elem_id="answers"):
                left = _html("left", answer_pane("left", None))
                right = _html("right", answer_pane("right", None))
            _html("foot", composer() + judging_bar() + _status_line() + help_dialog())
        with gr.Column(elem_id="side"):
            guidelines = _html("guidelines")
            history = _html("history")
            _html("keys", f'<details class="keys"><summary>{texts.SHORTCUTS_TITLE}</summary>{_shortcuts()}</details>')
    return PageComponents(wire, stream, scene, left, right, history, top, guidelines)


def _data(name: str, script: str) -> gr.HTML:
    """Something that shows nothing, whose values the script hears of."""
    return gr.HTML(value="", html_template="", js_on_load=script, elem_id=name)


def _html(name: str, value: str = "") -> gr.HTML:
    return gr.HTML(value, elem_id=name, js_on_load=None, apply_default_css=False)


# -- what never changes -----------------------------------------------------------------------------------------------


def composer() -> str:
    """The prompt box, and how to go on without writing a prompt."""
    send = button("ask", texts.SEND, shortcut="Enter", look="primary")
    return (
        '<section id="composer" hidden><div class="box">'
        f'<textarea id="prompt" rows="1" aria-label="{texts.SPEAKERS["user"]}" aria-describedby="counter"></textarea>'
        f'<span id="counter"></span>{send}</div>'
        f'<button type="button" class="button" data-do="next" id="onward"><span></span> {key("N")}</button></section>'
    )


def judging_bar() -> str:
    """The judging bar: eight options, safety, note, and what to do with it all."""
    note = (
        f'<textarea id="note" rows="1" maxlength="{MAX_NOTE_CHARS}" placeholder="{texts.NOTE_HINT}" '
        f'aria-label="{texts.NOTE}"></textarea>'
    )
    actions = (
        button("flag", texts.FLAG_IT, shortcut="F", aria_pressed="false")
        + button("skip", texts.SKIP, shortcut="S", id="skip", aria_haspopup="dialog")
        + button("submit", texts.SUBMIT, shortcut="Enter", look="primary", id="submit")
    )
    undo = button("undo", texts.UNDO, shortcut="U", id="undo", disabled="")
    return (
        f'<section id="bar"><fieldset id="judging" disabled>{_strip()}{_safety()}'
        f'<div class="actions">{note}{actions}</div>{_skip_list()}</fieldset>{undo}</section>'
    )


def _strip() -> str:
    halves = "".join(_half(letter, first) for letter, first in (("A", 1), ("B", 5)))
    return f'<div class="strip" role="radiogroup" aria-label="{texts.STRIP}">{halves}</div>'


def _half(letter: str, first: int) -> str:
    options = "".join(_option(letter, number) for number in range(first, first + 4))
    name = f'<span class="is">{texts.ANSWER_IS.format(letter=letter)}</span>'
    return f'<div class="half {letter.lower()}">{name}{options}</div>'


def _option(letter: str, number: int) -> str:
    grade = meaning_of(number)[1]
    label = escape(texts.GRADE_LABELS[grade])
    said = f"{texts.ANSWER_IS.format(letter=letter)}: {label}"
    return _choice("option", str(number), str(number), label, look=f"option s{GRADES.index(grade)}", said=said)


def _safety() -> str:
    bins = "".join(
        _choice("safety", value, letter, f"{escape(label)}<small></small>", look="bin")
        for letter, value, label in texts.SAFETY_CHOICES
    )
    name = f'<span class="is">{texts.SAFETY}</span>'
    return f'<div class="bins" role="radiogroup" aria-label="{texts.SAFETY}" hidden>{name}{bins}</div>'


def _skip_list() -> str:
    reasons = "".join(
        _choice("reason", reason, str(number), escape(label), look="reason")
        for number, (reason, label) in enumerate(SKIP_REASONS.items(), start=1)
    )
    confirm = button("skip-confirm", texts.SKIP, shortcut="Enter", look="primary")
    cancel = button("skip-cancel", texts.CANCEL, shortcut="Esc")
    return (
        f'<div id="reasons" role="dialog" aria-label="{texts.WHY_SKIP}" tabindex="-1" hidden><h2>{texts.WHY_SKIP}</h2>'
        f'<div role="radiogroup" aria-label="{texts.WHY_SKIP}">{reasons}</div>'
        f'<p class="buttons">{confirm}{cancel}</p></div>'
    )


def _choice(name: str, value: str, shortcut: str, label: str, *, look: str, said: str = "") -> str:
    """A radio button that looks like a button, with its key printed on it; ``said`` is for screen readers."""
    spoken = f' aria-label="{said}"' if said else ""
    box = f'<input type="radio" name="{name}" value="{value}"{spoken}>'
    return f'<label class="{look}">{box}{key(shortcut)}<span>{label}</span></label>'


def _status_line() -> str:
    return '<p id="status" role="status" aria-live="polite"></p>'


def _shortcuts() -> str:
    rows = "".join(f"<dt>{_keys(names)}</dt><dd>{escape(what)}</dd>" for names, what in texts.SHORTCUTS)
    return f'<dl class="shortcuts">{rows}</dl>'


def _keys(names: str) -> str:
    return "".join(key(name) for name in names.split())


def help_dialog() -> str:
    """All keys, over the page."""
    title, close = texts.SHORTCUTS_TITLE, button("help", texts.CLOSE, shortcut="Esc", look="primary")
    return (
        f'<dialog id="help" aria-label="{title}"><h2>{title}</h2>{_shortcuts()}<p class="buttons">{close}</p></dialog>'
    )
