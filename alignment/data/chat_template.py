"""What a chat template writes around messages, found by rendering it with placeholders instead of texts.

A template is a Jinja program; the only safe way to know which characters of its output are the template's and
which are a person's is never to show it the person's. Each message is rendered as a placeholder, the output
is cut at the placeholders, and what is left is the template's own text for that sequence of roles.

Not here: tokens (``alignment.data.dialogue_encoder``) and tool calls, images or reasoning fields, which a dialogue of
this project does not have.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import jinja2

from alignment.data.records import ChatRole
from alignment.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LLAMA2_CHAT_TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set system = '<<SYS>>\\n' + messages[0]['content'] | trim + '\\n<</SYS>>\\n\\n' %}"
    "{% set turns = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for turn in turns %}"
    "{% if (turn['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('turns must alternate user/assistant/user/...') }}{% endif %}"
    "{% if turn['role'] == 'user' %}"
    "{{ bos_token }}{{ '[INST] ' + (system if loop.first else '') + turn['content'] | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + turn['content'] | trim + ' ' }}{{ eos_token }}{% endif %}"
    "{% endfor %}"
)
"""Llama 2's format: BOS and EOS around each finished pair, BOS alone before the open one; tags are text."""

_DATE_CALL = re.compile(r"strftime_now\(\s*(?:'([^']*)'|\"([^\"]*)\")\s*\)")
_DATE_FIXED = "{#- dates as of "


def with_date(template: str, today: date) -> str:
    """A template that writes one date for good where it wrote that of the day on which it is used.

    Prompts would differ from one day to the next otherwise, and a model would be trained on one and asked with another.

    Args:
        template: a chat template, as Transformers runs it: with a function ``strftime_now``.
        today: the date to write.

    Returns:
        The template itself, if it writes no date or has one already.

    Raises:
        UserError: it writes a date in a form that it makes up itself.
    """
    if "strftime_now(" not in template or template.startswith(_DATE_FIXED):
        return template
    forms = [first or second for first, second in _DATE_CALL.findall(template)]
    if len(forms) != template.count("strftime_now("):
        raise UserError(
            "the chat template writes the date of the day on which it is used, in a form that is not plain text in it. "
            "Give one without a date in the tokenizer's chat_template."
        )
    dates = {form: today.strftime(form) for form in forms}
    macro = f"{{%- macro strftime_now(form) -%}}{{{{ {dates!r}[form] }}}}{{%- endmacro -%}}"
    return f"{_DATE_FIXED}{today.isoformat()} -#}}{macro}{template}"


def date_of(template: str) -> date | None:
    """The date that a template writes for good; ``None`` for one that writes none."""
    if not template.startswith(_DATE_FIXED):
        return None
    return date.fromisoformat(template.removeprefix(_DATE_FIXED)[: len("2026-01-31")])


_PLACEHOLDER = "zqcontent{}zq"
_PLACEHOLDER_PATTERN = re.compile(r"zqcontent(\d+)zq")
_PADDING = "\n \n"


@dataclass(frozen=True)
class Rendered:
    """A template's output: ``texts[0], message slots[0], texts[1], ..., texts[-1]``, one text more."""

    texts: tuple[str, ...]
    slots: tuple[int, ...]


@dataclass(frozen=True)
class Trim:
    """What a template cuts from the ends of one role's messages: ``None`` nothing, ``""`` all white space."""

    left: str | None
    right: str | None

    def apply(self, text: str) -> str:
        """Cut ``text`` as the template would."""
        if self.left is not None:
            text = text.lstrip(self.left or None)
        return text if self.right is None else text.rstrip(self.right or None)


def _cut_from(before: str, after: str, *, left: bool) -> str | None:
    """Which characters a template cut when ``before`` became ``after``; see ``Trim``."""
    for cut in (None, "\n", ""):
        kept = before if cut is None else (before.lstrip(cut or None) if left else before.rstrip(cut or None))
        if kept == after:
            return cut
    raise UserError(
        "the chat template changes the text of messages in a way other than trimming its ends; "
        "give another one in the tokenizer's chat_template."
    )


class ChatTemplate:
    """A tokenizer's chat template, or Llama 2's where it has none, as the texts around each message."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, template: str | None = None) -> None:
        """Check that the template is usable.

        Raises:
            UserError: the template cannot render user and assistant turns in alternation, or drops, repeats
                or rewrites what messages say.
        """
        self._tokenizer = tokenizer
        self.source = template if template is not None else self._own_template()
        self._trims: dict[str, Trim] = self._find_trims(("user", "assistant", "user", "assistant"))

    def _own_template(self) -> str:
        if self._tokenizer.chat_template is None:
            return LLAMA2_CHAT_TEMPLATE
        try:
            return self._tokenizer.get_chat_template()
        except ValueError as error:
            raise UserError(f"the tokenizer's chat template cannot be used: {error}") from error

    def render(self, roles: Sequence[ChatRole], *, add_generation_prompt: bool = False, padding: str = "") -> Rendered:
        """The texts that the template writes around messages of these roles.

        Raises:
            UserError: the template refuses these roles, or does not write each message exactly once.
        """
        chat = [
            {"role": role, "content": padding + _PLACEHOLDER.format(position) + padding}
            for position, role in enumerate(roles)
        ]
        try:
            text = self._tokenizer.apply_chat_template(
                chat, chat_template=self.source, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except (jinja2.TemplateError, TypeError, KeyError, IndexError) as error:
            raise UserError(f"{self._refusal(roles)}: {error}") from error
        pieces = _PLACEHOLDER_PATTERN.split(str(text))
        slots = tuple(int(number) for number in pieces[1::2])
        for position, role in enumerate(roles):
            if slots.count(position) != 1:
                count = slots.count(position)
                raise UserError(f"{self._refusal(roles)}: it writes message {position + 1} ({role}) {count} times")
        return Rendered(texts=tuple(pieces[0::2]), slots=slots)

    def around(self, roles: Sequence[ChatRole]) -> tuple[tuple[str, ...], tuple[int, ...], str]:
        """The texts before each message and the answer, the order of messages, the text after the answer.

        Raises:
            UserError: as ``render``, or an answer does not follow the generation prompt as the template
                writes it.
        """
        asked = self.render(roles, add_generation_prompt=True)
        answered = self.render((*roles, "assistant"))
        *history, before, after = answered.texts
        opening = asked.texts[-1]
        if answered.slots != (*asked.slots, len(roles)) or tuple(history) != asked.texts[:-1]:
            raise UserError(
                "the chat template writes a prompt in another way once there is an answer to it, so sampled "
                "and trained answers would differ. Give another one in the tokenizer's chat_template."
            )
        if not before.startswith(opening.rstrip(" ")):
            raise UserError(
                f"the chat template's generation prompt {opening!r} is not how it begins an answer "
                f"({before!r}), so sampled and trained answers would differ. "
                "Give another one in the tokenizer's chat_template."
            )
        has_generation_prompt = asked != self.render(roles)
        if not has_generation_prompt or before.rstrip(" ") == opening.rstrip(" "):
            opening = before
        return (*history, opening), asked.slots, after

    @staticmethod
    def _refusal(roles: Sequence[ChatRole]) -> str:
        if "system" in roles:
            return "the chat template does not support a system message (put its text into the first user turn)"
        return f"the chat template cannot render turns by {', '.join(roles)}"

    def trim(self, role: ChatRole) -> Trim:
        """What the template cuts from messages of ``role``."""
        if role not in self._trims:
            self._trims |= self._find_trims(("system", "user", "assistant"))
        return self._trims[role]

    def _find_trims(self, roles: tuple[ChatRole, ...]) -> dict[str, Trim]:
        plain, padded = self.render(roles), self.render(roles, padding=_PADDING)
        trims: dict[str, Trim] = {}
        for position, slot in enumerate(plain.slots):
            # Text between two messages holds what is left of the first's right end and the second's left end.
            before = self._remainder(plain.texts[position], padded.texts[position], left=position > 0)
            after = self._remainder(
                plain.texts[position + 1], padded.texts[position + 1], right=position + 1 < len(plain.slots)
            )
            trims[roles[slot]] = Trim(
                left=_cut_from(_PADDING, before[1], left=True),
                right=_cut_from(_PADDING, after[0], left=False),
            )
        return trims

    @staticmethod
    def _remainder(plain: str, padded: str, *, left: bool = True, right: bool = True) -> tuple[str, str]:
        """Padding that survived at the left and at the right end of one text between messages."""
        for start in (_PADDING, "\n ", ""):
            for end in (_PADDING, " \n", ""):
                if (start and not left) or (end and not right):
                    continue
                if start + plain + end == padded:
                    return start, end
        raise UserError(
            "the chat template writes other text for messages that begin or end with white space; "
            "give another one in the tokenizer's chat_template."
        )

    @property
    def supports_system(self) -> bool:
        """Whether a system message can be given."""
        try:
            self.render(("system", "user", "assistant"))
        except UserError:
            return False
        return True
