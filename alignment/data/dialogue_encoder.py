"""Messages -> token ids and loss masks, such that text can never become a control token.

What people say is encoded apart from what the chat template writes, and no control token is recognised in it:
a typed ``</s>`` becomes the pieces ``<``, ``/s``, ``>``. Marks of a template that are plain text to the
tokenizer (Llama 2's ``[INST]``) could not be told apart once encoded; a message that contains one is refused.

Where this differs from ``tokenizer.apply_chat_template(tokenize=True)``:

1. Tokens never span the border between a message and the template. Spaces that the template writes before a
   message are encoded with the message (``[/INST]`` + ``▁Sure``), so an answer begins as a sampled one does.
2. What stands before the last answer is the generation prompt, in training as in sampling: additions that a
   template makes to finished answers only (an empty ``<think>`` block) are left out.
3. A template that ends answers with no control token gets the tokenizer's EOS after the last answer.

What the template writes between an answer and its stop token (Llama 2: one space) is learned too, else
sampling could never arrive at the stop token. BOS stands where the template writes it and nowhere else.

Not here: padding, truncation (nothing is ever cut) and tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from alignment.data.chat_template import ChatTemplate
from alignment.data.control_tokens import TwoWayTokenizer, find_markers
from alignment.data.encoded_dialogues import EncodedAnswer, EncodedDialogue
from alignment.data.records import ChatRole, Message
from alignment.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LossOn = Literal["all_answers", "last_answer"]


@dataclass(frozen=True)
class _Text:
    """Tokens of the template; the first ``n_closing`` of them close the answer before."""

    ids: tuple[int, ...]
    n_closing: int = 0


@dataclass(frozen=True)
class _Slot:
    """The place of a message, with the spaces that stand before it."""

    message: int
    lead: str


@dataclass(frozen=True)
class _Plan:
    """How to encode dialogues of the same roles: ``prompt``, the answer after ``lead``, then ``end``."""

    prompt: tuple[_Text | _Slot, ...]
    lead: str
    end: _Text


class DialogueEncoder:
    """Encodes dialogues for one tokenizer; later changes of the tokenizer are not seen.

    Attributes:
        template: the chat template in use.
        stop_id: the token that is learned at the end of answers.
        stop_ids: every id that ends an answer: the one above, EOS, and those given.
        pad_id: the pad token, or EOS where there is none (masks come from lengths, so equal ids do no harm).
        control_ids: ids that no message can contain.
        control_markers: plain-text marks of the template that no message may contain.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        chat_template: str | None = None,
        eos_token_ids: Iterable[int] = (),
    ) -> None:
        """Study the tokenizer and its template.

        Args:
            tokenizer: a fast tokenizer.
            chat_template: used instead of the tokenizer's own.
            eos_token_ids: further ids that end an answer, usually those of the model's generation config.

        Raises:
            UserError: the tokenizer or its template cannot be used.
        """
        self._tokenizer: Any = tokenizer
        self.template = ChatTemplate(tokenizer, template=chat_template)
        self._text = TwoWayTokenizer(tokenizer, template=self.template.source)
        self.control_ids = self._text.control_ids
        eos: int | None = tokenizer.eos_token_id
        self._tail, self.stop_id = self._find_stop(eos)
        self.stop_ids: frozenset[int] = frozenset(
            {self.stop_id, *eos_token_ids} | ({eos} if eos is not None else set())
        )
        pad: int | None = tokenizer.pad_token_id
        self.pad_id: int = next(i for i in (pad, eos, self.stop_id) if i is not None)
        self.control_markers = self._find_control_markers()
        self._plans: dict[tuple[ChatRole, ...], _Plan] = {}
        self._plan(("user",))

    def _find_stop(self, eos: int | None) -> tuple[str, int]:
        """What the template writes between an answer and its stop token, and that token."""
        ending = self.template.render(("user", "assistant")).texts[-1]
        match = self._text.control_pattern.search(ending)
        if match:
            return ending[: match.start()], self._text.template_ids(match.group())[0]
        if eos is None:
            raise UserError(
                "answers have no stop token: the chat template ends them with no control token and the "
                "tokenizer has no EOS. Set the tokenizer's eos_token."
            )
        return "", eos

    @property
    def template_source(self) -> str:
        """The chat template in use, as it is written."""
        return self.template.source

    def _find_control_markers(self) -> tuple[str, ...]:
        roles: tuple[ChatRole, ...] = ("user", "assistant", "user", "assistant")
        texts = list(self.template.render(roles).texts)
        texts += self.template.render(roles[:-1], add_generation_prompt=True).texts
        if self.template.supports_system:
            texts += self.template.render(("system", *roles)).texts
        plain = (self._text.control_pattern.sub("\0", text) for text in texts)
        return tuple(sorted(set().union(*map(find_markers, plain))))

    def _plan(self, roles: tuple[ChatRole, ...]) -> _Plan:
        """The plan for a prompt with these roles and an answer to it."""
        if roles not in self._plans:
            self._plans[roles] = self._make_plan(roles)
        return self._plans[roles]

    def _make_plan(self, roles: tuple[ChatRole, ...]) -> _Plan:
        texts, slots, ending = self.template.around(roles)
        steps: list[_Text | _Slot] = []
        lead = ""
        for position, text in enumerate(texts):
            at_start = position == 0
            kept, lead = self._text.split_lead(text, at_start=at_start)
            after_answer = not at_start and roles[slots[position - 1]] == "assistant"
            steps.append(self._literal(kept, at_start=at_start, after_answer=after_answer))
            if position < len(slots):
                steps.append(_Slot(message=slots[position], lead=lead))
        end = self._literal(ending, at_start=False, after_answer=True)
        return _Plan(
            prompt=tuple(steps),
            lead=lead,
            end=end if end.n_closing else _Text(ids=(self.stop_id,), n_closing=1),
        )

    def _literal(self, text: str, *, at_start: bool, after_answer: bool) -> _Text:
        ids = tuple(self._text.literal_ids(text, at_start=at_start))
        match = self._text.control_pattern.search(text)
        if not (after_answer and match and text[: match.start()] == self._tail):
            return _Text(ids=ids)
        n_tail = len(self._text.plain_ids(self._tail))
        return _Text(ids=ids, n_closing=n_tail + 1 if ids[n_tail] == self.stop_id else 0)

    def _message_ids(self, message: Message, lead: str, position: int) -> list[int]:
        """Encode what a person says.

        Raises:
            UserError: the text contains a marker of the template, or would become a control token after all.
        """
        text = self.template.trim(message.role).apply(message.content)
        if not text:
            return []
        ids = self._text.plain_ids(lead + text)
        # A normaliser can make a marker of look-alikes (full-width brackets): what the model reads counts.
        read = self._text.decode(ids, skip_control=False) if self.control_markers else ""
        where = f"message {position + 1} ({message.role}), {message.content[:80]!r},"
        for marker in self.control_markers:
            if marker in text or marker in read:
                raise UserError(
                    f"{where} contains {marker!r}: the chat template marks turns with it, and the model "
                    "could not tell the two apart. Remove it from the text, or use another template."
                )
        forged = self.control_ids.intersection(ids)
        if forged:
            names = ", ".join(repr(self._tokenizer.convert_ids_to_tokens(i)) for i in sorted(forged))
            raise UserError(
                f"{where} contains {names}, which this tokenizer can only encode as a control token. "
                "Remove it from the text."
            )
        return ids

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a dialogue that waits for an answer, ending with the generation prompt.

        Raises:
            UserError: the dialogue does not end with a user turn, the template does not support its roles, or
                a message contains a mark of the template.
        """
        return self._encode_turns(messages)[0]

    def encode_answer(self, messages: Sequence[Message], answer: str) -> EncodedAnswer:
        """Ids of a prompt and of an answer to it; the answer ends with the stop token.

        Raises:
            UserError: as ``encode_prompt``.
        """
        prompt_ids = self.encode_prompt(messages)
        plan = self._plan(tuple(message.role for message in messages))
        text_ids = self._message_ids(Message(role="assistant", content=answer), plan.lead, len(messages))
        return EncodedAnswer(prompt_ids=prompt_ids, answer_ids=[*text_ids, *plan.end.ids[: plan.end.n_closing]])

    def encode_dialogue(self, messages: Sequence[Message], *, loss_on: LossOn) -> EncodedDialogue:
        """Ids and loss mask of a dialogue that ends with an answer.

        Args:
            messages: the dialogue, the last turn by the assistant.
            loss_on: learn every answer, or the last one only.

        Raises:
            UserError: the dialogue does not end with an assistant turn, or as ``encode_prompt``.
        """
        if loss_on not in ("all_answers", "last_answer"):
            raise ValueError(f"loss_on must be 'all_answers' or 'last_answer', not {loss_on!r}")
        if not messages or messages[-1].role != "assistant":
            raise UserError("a dialogue to learn from must end with a turn by the assistant.")
        ids, mask = self._encode_turns(messages[:-1])
        if loss_on == "last_answer":
            mask = [False] * len(ids)
        plan = self._plan(tuple(message.role for message in messages[:-1]))
        answer_ids = self._message_ids(messages[-1], plan.lead, len(messages) - 1)
        n_learned = len(answer_ids) + plan.end.n_closing
        n_rest = len(plan.end.ids) - plan.end.n_closing
        return EncodedDialogue(
            input_ids=[*ids, *answer_ids, *plan.end.ids],
            loss_mask=mask + [True] * n_learned + [False] * n_rest,
        )

    def _encode_turns(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """Ids up to the generation prompt, and a mask that is True on the answers among them."""
        if not messages or messages[-1].role != "user":
            raise UserError("a prompt must end with a turn by the user.")
        ids: list[int] = []
        mask: list[bool] = []
        for step in self._plan(tuple(message.role for message in messages)).prompt:
            if isinstance(step, _Text):
                ids += step.ids
                mask += [True] * step.n_closing + [False] * (len(step.ids) - step.n_closing)
            else:
                message_ids = self._message_ids(messages[step.message], step.lead, step.message)
                ids += message_ids
                mask += [messages[step.message].role == "assistant"] * len(message_ids)
        return ids, mask

    def decode(self, ids: Sequence[int]) -> str:
        """The text of an answer: without control tokens and without what the template puts around it."""
        text = self._text.decode(ids, skip_control=True)
        return text.removeprefix(self._plan(("user",)).lead).removesuffix(self._tail)
