"""The annotation page as a Gradio app: where everything stands, and which event asks for which action.

The page is one screen without scrolling: a bar at the top, the conversation, two answers of equal height, the judging
bar, and a panel at the side. Only ``PageComponents`` are ever sent again; prompt box and judging bar are drawn once and
switched by ``assets/page.js``, so that nothing typed is lost and a saved judgment costs a few hundred bytes.

``wire`` shows nothing. It carries the state of the page to the script, and the script's requests to the handlers of
``page_actions``: Gradio runs ``js_on_load`` once, with ``trigger`` to raise events and ``watch`` to hear of new values.
Answers that are being written come by ``stream``: none of its many values can take the place of a state.

``api_visibility`` keeps an event out of the API's description and protects nothing: anyone who is signed in can call
each of these by name or number, so the desk checks role and ownership every time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio.to_thread
import gradio as gr

from annotation_ui import texts
from annotation_ui.desk.desk import Desk
from annotation_ui.web import page_templates
from annotation_ui.web.page_actions import ACTIONS, ACTIONS_AT_ONCE, action_handler, answer_watcher

_ASSETS = Path(__file__).parents[1] / "assets"


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
    wire = _data("wire", f"tandem.attach({json.dumps(list(map(event_name, actions)))}, props, trigger, watch)")
    stream = _data("stream", "tandem.listen(props, watch)")
    top = _html("top")
    with gr.Row(elem_id="room"):
        with gr.Column(elem_id="work"):
            scene = _html("scene")
            with gr.Row(elem_id="answers"):
                left = _html("left", page_templates.answer_pane("left", None))
                right = _html("right", page_templates.answer_pane("right", None))
            _html("foot", page_templates.foot())
        with gr.Column(elem_id="side"):
            guidelines = _html("guidelines")
            history = _html("history")
            _html("keys", page_templates.shortcut_list())
    return PageComponents(wire, stream, scene, left, right, history, top, guidelines)


def _data(name: str, script: str) -> gr.HTML:
    """Something that shows nothing, whose values the script hears of."""
    return gr.HTML(value="", html_template="", js_on_load=script, elem_id=name)


def _html(name: str, value: str = "") -> gr.HTML:
    return gr.HTML(value, elem_id=name, js_on_load=None, apply_default_css=False)


def _connect(parts: PageComponents, desk: Desk) -> None:
    at_once = anyio.CapacityLimiter(ACTIONS_AT_ONCE)
    for name, action in ACTIONS.items():
        event = getattr(parts.wire, event_name(name))(
            action_handler(desk, name, action, at_once),
            inputs=[parts.wire],
            outputs=parts.everything if action.whole else parts.desk,
            js=f"() => [tandem.parcel('{name}')]",
            api_name=name,
            queue=False,
            show_progress="hidden",
            trigger_mode="multiple",
        )
        event.failure(None, js=f"() => tandem.failed('{name}')", show_progress="hidden")


def _connect_watch(parts: PageComponents, desk: Desk) -> None:
    event = getattr(parts.wire, event_name("watch"))(
        answer_watcher(desk),
        inputs=[parts.wire],
        outputs=[parts.stream],
        js="() => [tandem.parcel('watch')]",
        api_name="watch",
        show_progress="hidden",
        trigger_mode="multiple",
        concurrency_id="answers",
        concurrency_limit=None,
    )
    event.failure(None, js="() => tandem.failed('watch')", show_progress="hidden")


def build(desk: Desk) -> gr.Blocks:
    """Make the page over a desk; mount it with ``gr.mount_gradio_app(app, page, path="/", **PAGE)``."""
    with gr.Blocks(title=texts.PAGE_TITLE, analytics_enabled=False, fill_width=True) as page:
        parts = lay_out([*ACTIONS, "watch"])
        _connect(parts, desk)
        _connect_watch(parts, desk)
        page.load(None, js="() => tandem.start()")
    return page.queue(api_open=True, max_size=None)


def _head() -> str:
    """Style and script as part of the page: Gradio would rewrite the selectors of its ``css`` argument."""
    css, script = ((_ASSETS / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return f"<style>{css}</style><script>const TANDEM_TEXTS = {json.dumps(texts.SCRIPT)};\n{script}</script>"


_SYSTEM = (gr.themes.Font("system-ui"), gr.themes.Font("sans-serif"))
_SYSTEM_MONO = (gr.themes.Font("ui-monospace"), gr.themes.Font("monospace"))
PAGE: dict[str, Any] = {
    "head": _head(),
    "theme": gr.themes.Base(font=_SYSTEM, font_mono=_SYSTEM_MONO),
    "footer_links": [],
    "run_history": False,
    "show_error": False,
    "ssr_mode": False,
    "pwa": False,
    "mcp_server": False,
    "enable_monitoring": False,
    "max_file_size": "1kb",
}
"""Arguments for ``gr.mount_gradio_app``: looks and script of the page; what it does not use is switched off."""
