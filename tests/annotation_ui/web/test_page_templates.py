"""The pieces of the annotation page: what is in them for each phase, what never is, and what is not sent again."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from alignment.data.records import Message
from annotation_ui import texts
from annotation_ui.desk.view import Draft, PastJudgment, Progress, ProjectChoice, View
from annotation_ui.vocabulary import Pane, Phase, Refused, option_of
from annotation_ui.web import gradio_app, page_actions, page_forms, page_templates

ASSETS = Path(gradio_app.__file__).parents[1] / "assets"
EVIL = '"><script>window.pwned=1</script><img src=x onerror=alert(1)>'


class Outline(HTMLParser):
    """The elements of a piece of HTML with their attributes, and the words in between."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data

    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}

    def values(self, attribute: str) -> list[str | None]:
        return [attributes[attribute] for _, attributes in self.elements if attribute in attributes]


def make_view(phase: Phase = "open", **changes: Any) -> View:
    """A view with a pair on the desk."""
    view = View(
        project="help",
        dimension="helpfulness",
        projects=(ProjectChoice("help", "Recipes", "helpfulness"), ProjectChoice("safe", "Red team", "safety")),
        phase=phase,
        progress=Progress(today=3, total=40, left_in_queue=7),
        guidelines="# Choose well",
        guidelines_sha256="0" * 64,
        max_prompt_chars=2000,
        user="maria",
        role="annotator",
        prompt="Why is bread stale?",
        left=Pane("Because of starch."),
        right=Pane("Because it is old."),
        comparison_id="cmp_1",
        submission_id="cmp_1.0",
    )
    return replace(view, **changes)


def does(html: str) -> list[str | None]:
    """What the buttons of a piece do."""
    return Outline(html).values("data-do")


# -- what the script is told ------------------------------------------------------------------------------------------


def test_the_state_of_the_page_holds_no_text_of_models_or_people() -> None:
    secret = make_view(
        prompt="PROMPT", left=Pane("LEFT"), right=Pane("RIGHT"), past=(Message(role="user", content="PAST"),)
    )
    told = page_templates.page_state(
        replace(secret, guidelines="GUIDE", explanation="WHY", draft=Draft(6, note="my note"))
    )
    assert not re.search("PROMPT|LEFT|RIGHT|PAST|GUIDE|WHY", str(told))
    assert (told["draft"]["option"], told["draft"]["note"]) == (6, "my note")
    assert told["progress"] == {"today": 3, "total": 40, "left_in_queue": 7}
    assert (told["comparison_id"], told["submission_id"]) == ("cmp_1", "cmp_1.0")


@pytest.mark.parametrize(
    ("change", "scene_stays", "answers_stay"),
    [
        ({"phase": "judged", "draft": Draft(2)}, True, True),
        ({"phase": "explained"}, False, True),
        ({"editing": True}, False, True),
        ({"comparison_id": "cmp_2"}, False, False),
        ({"phase": "generating"}, False, False),
        ({"phase": "idle"}, False, False),
    ],
)
def test_parts_are_named_by_what_they_show(change: dict[str, Any], scene_stays: bool, answers_stay: bool) -> None:
    before, after = (page_templates.part_keys(view) for view in (make_view(), make_view(**change)))
    assert (before["scene"] == after["scene"]) is scene_stays
    assert (before["answers"] == after["answers"]) is answers_stay


def test_parts_that_can_change_have_no_name() -> None:
    for phase in ("generating", "idle", "failed", "warning", "empty"):
        assert page_templates.part_keys(make_view(phase)) == {"scene": "", "answers": ""}


# -- above the answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "buttons"),
    [
        ({"phase": "warning", "dimension": "safety"}, ["accept", "leave"]),
        ({"phase": "idle", "may_fetch": True}, ["fetch", "train"]),
        ({"phase": "idle", "may_prompt": True}, ["train"]),
        ({"phase": "failed"}, ["retry", "pass-over"]),
        ({"phase": "empty", "may_fetch": True}, ["fetch", "train"]),
        ({"phase": "empty"}, ["train"]),
        ({"phase": "explained", "explanation": "Because."}, ["next"]),
        ({"phase": "open"}, []),
        ({"phase": "generating"}, []),
        ({"phase": "judged"}, []),
    ],
)
def test_each_phase_offers_what_can_be_done(changes: dict[str, Any], buttons: list[str]) -> None:
    assert does(page_templates.scene(make_view(**changes))) == buttons


def test_the_content_warning_is_shown_and_the_prompt_is_not() -> None:
    scene = page_templates.scene(make_view("warning", dimension="safety"))
    assert "It is voluntary" in scene and "bread" not in scene


def test_a_failure_shows_the_reason_and_keeps_the_prompt() -> None:
    words = Outline(page_templates.scene(make_view("failed", message="Timed out."))).words
    assert "Timed out." in words and "Why is bread stale?" in words


def test_what_the_desk_says_replaces_the_hint_of_an_idle_page() -> None:
    hint = texts.IDLE[True, False][1]
    assert hint in page_templates.scene(make_view("idle", may_fetch=True))
    told = page_templates.scene(make_view("idle", may_fetch=True, message="First, a short test."))
    assert "First, a short test." in told and hint not in told


def test_training_and_test_say_what_they_are_and_work_does_not() -> None:
    training = Outline(page_templates.scene(make_view(kind="training", place="2 of 5"))).words
    exam = Outline(page_templates.scene(make_view(kind="qualification", place="3 of 10"))).words
    assert "Training, 2 of 5" in training and "Qualification test, 3 of 10" in exam
    assert "banner" not in page_templates.scene(make_view())
    assert "earlier judgment" in page_templates.scene(make_view(editing=True))


def test_only_the_last_exchange_is_open() -> None:
    turns = [Message(role=role, content=f"{role} {n}") for n in (1, 2, 3) for role in ("user", "assistant")]
    scene = page_templates.scene(make_view(past=tuple(turns), turn=4, max_turns=4))
    folded, shown = scene[: scene.index("</details>")], scene[scene.index("</details>") :]
    assert all(f"{role} {n}" in folded for n in (1, 2) for role in ("user", "assistant"))
    assert "user 3" in shown and "assistant 3" in shown and "user 3" not in folded
    assert "(4)" in folded and "Turn 4 of 4" in shown


def test_one_exchange_is_not_folded_and_one_turn_is_not_counted() -> None:
    exchange = (Message(role="user", content="hello"), Message(role="assistant", content="good day"))
    scene = page_templates.scene(make_view(past=exchange, turn=2, max_turns=1))
    assert "<details" not in scene and "good day" in scene and "Turn" not in scene


def test_instructions_of_the_system_are_folded_but_not_lost() -> None:
    scene = page_templates.scene(make_view(past=(Message(role="system", content="Be brief."),)))
    assert "Be brief." in scene[: scene.index("</details>")]


# -- answers ----------------------------------------------------------------------------------------------------------


def test_an_answer_is_there_rendered_and_raw() -> None:
    pane = page_templates.answer_pane("left", Pane("**bold**"))
    rendered, raw = pane.split('<div class="body raw"')
    assert "<strong>bold</strong>" in rendered and "**" not in rendered
    assert "**bold**" in raw and "<strong>" not in raw


def test_a_pane_says_which_answer_it_is_whether_it_was_cut_off_and_whether_it_goes_on() -> None:
    cut, going, empty = Pane("x", cut_off=True), Pane("x", done=False), Pane("  ")
    assert Outline(page_templates.answer_pane("left", cut)).values("aria-label") == ["Answer A"]
    assert Outline(page_templates.answer_pane("right", cut)).values("aria-label") == ["Answer B"]
    for pane, badge, writing, none in ((cut, 1, 0, 0), (going, 0, 1, 0), (empty, 0, 0, 2), (None, 0, 1, 0)):
        html = page_templates.answer_pane("left", pane)
        assert (html.count(texts.CUT_OFF_HINT), html.count('"writing"')) == (badge, writing)
        assert html.count(texts.NO_TEXT) == none


# -- hostile text -----------------------------------------------------------------------------------------------------


def test_no_text_of_models_people_or_projects_becomes_an_element() -> None:
    projects = (ProjectChoice("help", EVIL, "helpfulness"), ProjectChoice(EVIL, EVIL, "safety"))
    past = (Message(role="user", content=EVIL), Message(role="assistant", content=EVIL))
    entry = PastJudgment(EVIL, EVIL, EVIL, EVIL, can_edit=True, can_withdraw=True)
    view = make_view(
        projects=projects,
        past=past,
        prompt=EVIL,
        left=Pane(EVIL),
        user=EVIL,
        message=EVIL,
        place=EVIL,
        kind="training",
        explanation=EVIL,
        guidelines=EVIL,
        history=(entry,),
    )
    phases: tuple[Phase, ...] = ("idle", "failed", "empty", "open", "explained", "judged")
    pieces = [page_templates.scene(replace(view, phase=phase)) for phase in phases]
    pieces += [page_templates.top(view), page_templates.guidelines(view), page_templates.history(view.history)]
    pieces.append(page_templates.answer_pane("left", view.left))
    for piece in pieces:
        outline = Outline(piece)
        assert not outline.tags() & {"script", "img", "style", "iframe", "form"}
        assert not any(name.startswith("on") for _, attributes in outline.elements for name in attributes)
        assert "window.pwned=1" in outline.words + str(outline.elements)


# -- top and side -----------------------------------------------------------------------------------------------------


def test_the_way_out_is_always_there_in_safety_projects_and_only_there() -> None:
    for phase in ("warning", "idle", "generating", "open", "judged", "empty"):
        assert "leave" in does(page_templates.top(make_view(phase, dimension="safety")))
    assert "leave" not in does(page_templates.top(make_view()))


@pytest.mark.parametrize(
    ("role", "links"), [("annotator", []), ("reviewer", ["/review"]), ("admin", ["/review", "/admin"])]
)
def test_links_depend_on_the_role(role: Any, links: list[str]) -> None:
    assert Outline(page_templates.top(make_view(role=role))).values("href") == links


def test_the_project_on_the_desk_is_the_chosen_one() -> None:
    options = [
        given for tag, given in Outline(page_templates.top(make_view(project="safe"))).elements if tag == "option"
    ]
    assert [given["value"] for given in options if "selected" in given] == ["safe"]
    alone = make_view(projects=(ProjectChoice("help", "Recipes", "helpfulness"),))
    assert "<select" not in page_templates.top(alone) and "Recipes" in page_templates.top(alone)


def test_own_progress_is_in_the_top() -> None:
    top = page_templates.top(make_view())
    assert "3 today" in top and "40 in all, 7 left in the queue" in top


def test_history_offers_a_change_only_where_there_can_be_one() -> None:
    entries = [
        PastJudgment(
            f"cmp_{number}",
            "2026-03-04T05:06:07.000Z",
            f"prompt {number}",
            "A better",
            can_edit=number == 1,
            can_withdraw=True,
        )
        for number in (1, 2)
    ]
    outline = Outline(page_templates.history(entries))
    acts = [(given["data-do"], given["data-comparison"]) for tag, given in outline.elements if tag == "button"]
    assert acts == [("edit", "cmp_1"), ("retract", "cmp_1"), ("retract", "cmp_2")]
    assert outline.values("datetime") == ["2026-03-04T05:06:07.000Z"] * 2 and "05:06" in outline.words
    assert texts.NO_HISTORY in page_templates.history([])


# -- the judging bar --------------------------------------------------------------------------------------------------


def radios(html: str, name: str) -> list[dict[str, str | None]]:
    """The radio buttons of a group."""
    return [attributes for tag, attributes in Outline(html).elements if tag == "input" and attributes["name"] == name]


def test_the_strip_has_the_options_of_the_session_in_the_order_of_their_keys() -> None:
    options = radios(page_templates.foot(), "option")
    assert [option["value"] for option in options] == list("12345678")
    assert [option["aria-label"] for option in options] == [
        "Answer A is: Significantly better",
        "Answer A is: Better",
        "Answer A is: Slightly better",
        "Answer A is: Negligibly better / unsure",
        "Answer B is: Negligibly better / unsure",
        "Answer B is: Slightly better",
        "Answer B is: Better",
        "Answer B is: Significantly better",
    ]
    assert option_of("right", "significantly_better") == 8 and option_of("left", "significantly_better") == 1


def test_safety_keys_and_reasons_are_in_the_order_in_which_the_script_counts_them() -> None:
    bar = page_templates.foot()
    values = [radio["value"] for radio in radios(bar, "safety")]
    assert values == ["preferred_safe_other_unsafe", "both_safe", "both_unsafe", "preferred_unsafe_other_safe"]
    assert "".join(letter for letter, _, _ in texts.SAFETY_CHOICES).lower() == "qwer"
    assert 'SAFETY_KEYS = "qwer"' in (ASSETS / "page.js").read_text()
    assert [radio["value"] for radio in radios(bar, "reason")] == list(texts.SKIP_REASONS)


def test_the_bar_starts_disabled() -> None:
    elements = dict(Outline(page_templates.foot()).elements[::-1])
    assert "disabled" in elements["fieldset"]


def test_every_key_that_does_something_is_in_the_list_of_keys() -> None:
    script = (ASSETS / "page.js").read_text()
    table = script[script.index("const KEYS = {") : script.index("const SAFETY_KEYS")]
    keys = {key.upper() for key in re.findall(r'(?:^|[\s{,])"?([a-z?/])"?:', table)}
    listed = {name for names, _ in texts.SHORTCUTS for name in names.split()}
    assert keys == {"S", "U", "N", "T", "G", "?", "F", "M", "/", "J", "K"}
    assert listed == keys | set("12345678QWER") | {"Enter", "Esc"}


def test_every_text_of_the_script_exists() -> None:
    used = set(re.findall(r"TEXTS\.(\w+)", (ASSETS / "page.js").read_text()))
    assert used == set(texts.SCRIPT)


def test_everything_that_buttons_do_is_known_to_the_script() -> None:
    script = (ASSETS / "page.js").read_text()
    table = script[script.index("const DOES = {") : script.index("// -- keys and clicks")]
    html = page_templates.foot() + page_templates.answer_pane("left", None)
    for view in (make_view("warning", dimension="safety"), make_view("idle", may_fetch=True), make_view("failed")):
        html += page_templates.top(view) + page_templates.scene(view) + page_templates.guidelines(view)
    html += page_templates.scene(make_view("explained", explanation="x"))
    html += page_templates.history(
        [PastJudgment("c", "2026-03-04T05:06:07Z", "p", "A better", can_edit=True, can_withdraw=True)]
    )
    for name in {name for name in does(html) if name}:
        assert re.search(rf'(?:[\s{{,"]){re.escape(name)}"?(?:,|:)', table), name


# -- what is sent -----------------------------------------------------------------------------------------------------

SKIPPED = {"__type__": "update"}


def test_a_saved_judgment_sends_neither_the_conversation_nor_the_answers_again() -> None:
    shown, judged = make_view(), make_view("judged", draft=Draft(2), message="Saved.", level="saved")
    first = page_actions.sent_view(shown, {})
    assert SKIPPED not in first and len(first) == 5
    state, *parts = page_actions.sent_view(judged, first[0]["has"])
    assert parts[:3] == [SKIPPED] * 3 and parts[3] != SKIPPED
    assert (state["message"], state["level"], state["view"]["phase"]) == ("Saved.", "saved", "judged")


def test_another_comparison_is_sent_whole_and_a_project_with_top_and_guidelines() -> None:
    has = page_actions.sent_view(make_view(), {})[0]["has"]
    assert SKIPPED not in page_actions.sent_view(make_view(comparison_id="cmp_2"), has)
    assert len(page_actions.sent_view(make_view(), {}, whole=True)) == 7


def test_a_message_changes_nothing_else_and_two_alike_are_told_apart() -> None:
    first, second = page_actions.sent_message("No."), page_actions.sent_message("No.")
    assert first[1:] == (SKIPPED,) * 4 and "view" not in first[0]
    assert first[0] != second[0]
    assert page_actions.sent_message("No.", whole=True)[1:] == (SKIPPED,) * 6


def test_a_refusal_is_told_and_an_unexpected_error_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert page_actions.trouble(Refused("Press 1 to 8.")) == "Press 1 to 8."
    assert not caplog.records
    with caplog.at_level(logging.ERROR):
        assert page_actions.trouble(RuntimeError("the password is xyz")) == texts.UNEXPECTED
    assert "the password is xyz" in caplog.text


@pytest.mark.parametrize("option", [None, "3", True, 2.5, [1], {"a": 1}])
def test_an_option_is_a_whole_number_or_the_judgment_is_not_taken(option: Any) -> None:
    given = {"comparison_id": "c", "submission_id": "s", "option": option}
    with pytest.raises(ValidationError):
        page_forms.JudgmentForm.model_validate(given)


def test_a_judgment_reaches_the_desk_as_it_was_given_and_a_broken_clock_does_not_stop_it() -> None:
    given = {
        "comparison_id": "c",
        "submission_id": "s",
        "option": 7,
        "safety": "both_safe",
        "note": "n",
        "flagged": True,
    }
    made = page_forms.JudgmentForm.model_validate(
        {**given, "active_ms": "soon", "input_method": "keyboard"}
    ).submission()
    assert (made.comparison_id, made.submission_id, made.option) == ("c", "s", 7)
    assert (made.safety, made.note, made.flagged) == ("both_safe", "n", True)
    assert (made.active_ms, made.input_method) == ("soon", "keyboard")


def test_no_words_stand_in_templates() -> None:
    """All of them stand in ``annotation_ui.texts``, where somebody can translate them; commands and styles stay."""
    for file in sorted((ASSETS.parent / "templates").glob("*.j2")):
        markup = re.sub(r"<style>.*?</style>|{% block style %}.*?{% endblock %}", "", file.read_text(), flags=re.DOTALL)
        markup = re.sub(r"{#.*?#}|{%.*?%}|{{.*?}}|<code>.*?</code>", "", markup, flags=re.DOTALL)
        assert not re.findall(r"[A-Za-z]{2,}", Outline(markup).words.replace("UTC", "")), file.name
