"""Messages -> ids: what is learned, what the template writes, and that text never becomes a control token."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from alignment.data.control_tokens import TwoWayTokenizer, find_markers
from alignment.data.dialogue_encoder import DialogueEncoder
from alignment.data.encoded_dialogues import check_length, encode_prompts
from alignment.data.records import Message, Prompt
from alignment.errors import UserError

CORPUS = [
    "Hello world, how are you today?",
    "[INST] <<SYS>> </s> <|im_end|> system user",
    "Paris is big.",
] * 3

TOY = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% for m in messages %}{% set text = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' "
    "+ m['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set text = bos_token + text %}{% endif %}{{ text }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}\n{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token }}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
QWEN3_LIKE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TOY_SPECIALS = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]


def byte_level(specials: list[str], **settings: Any) -> PreTrainedTokenizerFast:
    """A small byte-level BPE, as GPT-2, Qwen and Llama 3 have."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=settings.pop("add_prefix_space", False))
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **settings)


def metaspace(scheme: str, specials: list[str] | None = None, **settings: Any) -> PreTrainedTokenizerFast:
    """A small sentencepiece-like BPE with byte fallback that adds BOS by itself, as Llama 2 has.

    ``scheme``: how a space gets before the first word: ``legacy`` (a normaliser), ``first`` or ``always``.
    """
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    special_tokens = ["<unk>", "<s>", "</s>", *(specials or []), *bytes_]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special_tokens, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    spec = json.loads(tokenizer.to_str())
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] not in bytes_]
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    if scheme == "legacy":
        spec["pre_tokenizer"] = None
        prepend = {"type": "Prepend", "prepend": "▁"}
        spec["normalizer"] = {"type": "Sequence", "normalizers": [prepend, replace]}
    else:
        spec["pre_tokenizer"] = {
            "type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False
        }  # fmt: skip
    spec["decoder"] = {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ],
    }
    spec["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    }
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(spec)),
        unk_token="<unk>", bos_token="<s>", eos_token="</s>", **settings,
    )  # fmt: skip


def qwen_like() -> PreTrainedTokenizerFast:
    """Control tokens that are added without the special flag, and an added word that is no control token."""
    specials = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    tokenizer = byte_level(specials, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=QWEN3_LIKE)
    tokenizer.add_tokens([AddedToken("<think>"), AddedToken("</think>"), AddedToken("<tool_call>")])
    tokenizer.add_tokens(["zyzzyva"])
    return tokenizer


@cache
def tokenizer_named(name: str) -> PreTrainedTokenizerFast:
    chatml = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    llama3 = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    ends = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    toy: dict[str, Any] = {"eos_token": "<|end|>", "chat_template": TOY}
    makers = {
        "toy": lambda: byte_level(TOY_SPECIALS, **toy),
        "toy_adding_spaces": lambda: byte_level(TOY_SPECIALS, add_prefix_space=True, **toy),
        "toy_metaspace": lambda: metaspace("legacy", TOY_SPECIALS, chat_template=TOY),
        "chatml": lambda: byte_level(chatml, **ends, chat_template=CHATML),
        "llama3": lambda: byte_level(llama3, bos_token=llama3[0], eos_token=llama3[3], chat_template=LLAMA3),
        "llama2_legacy": lambda: metaspace("legacy"),
        "llama2_first": lambda: metaspace("first"),
        "llama2_always": lambda: metaspace("always"),
        "llama2_byte_level": lambda: byte_level(["<s>", "</s>"], bos_token="<s>", eos_token="</s>"),
        "zephyr": lambda: metaspace("first", chat_template=ZEPHYR),
        "zephyr_legacy": lambda: metaspace("legacy", chat_template=ZEPHYR),
        "qwen_like": qwen_like,
    }
    return makers[name]()


@cache
def encoder_named(name: str) -> DialogueEncoder:
    return DialogueEncoder(tokenizer_named(name))


TYPICAL = [
    "toy", "toy_adding_spaces", "toy_metaspace", "chatml", "llama3", "llama2_legacy", "llama2_first",
    "llama2_always", "llama2_byte_level", "zephyr", "zephyr_legacy",
]  # fmt: skip
ALL = [*TYPICAL, "qwen_like"]


def says(*texts: str, system: str | None = None) -> list[Message]:
    turns = [Message(role=("user", "assistant")[i % 2], content=text) for i, text in enumerate(texts)]
    return turns if system is None else [Message(role="system", content=system), *turns]


DIALOGUES = [
    says("Hello world", "Paris is big."),
    says("Hello world", "How are you?", "Paris is", "big."),
    says("Hello world", "How are you?", "Paris is", "big.", system="How are you today?"),
]


@pytest.mark.parametrize("name", TYPICAL)
@pytest.mark.parametrize("messages", DIALOGUES)
def test_harmless_text_is_encoded_as_the_template_itself_would(name: str, messages: list[Message]) -> None:
    tokenizer, encoder = tokenizer_named(name), encoder_named(name)

    def reference(turns: list[Message], **options: bool) -> list[int]:
        return tokenizer.apply_chat_template(
            [turn.model_dump() for turn in turns],
            chat_template=encoder.template.source, tokenize=True, return_dict=False, **options,
        )  # fmt: skip

    whole = encoder.encode_dialogue(messages, loss_on="all_answers").input_ids
    prompt = encoder.encode_prompt(messages[:-1])
    assert tokenizer.decode(whole) == tokenizer.decode(reference(messages))
    assert tokenizer.decode(prompt) == tokenizer.decode(reference(messages[:-1], add_generation_prompt=True))
    assert whole == reference(messages)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("messages", DIALOGUES)
def test_prompt_and_answer_are_the_beginning_of_the_dialogue(name: str, messages: list[Message]) -> None:
    encoder = encoder_named(name)
    prompt = encoder.encode_prompt(messages[:-1])
    answer = encoder.encode_answer(messages[:-1], messages[-1].content)
    whole = encoder.encode_dialogue(messages, loss_on="last_answer")
    end = len(prompt) + len(answer.answer_ids)
    assert answer.prompt_ids == prompt
    assert answer.input_ids == whole.input_ids[:end]
    assert whole.loss_mask == [False] * len(prompt) + [True] * len(answer.answer_ids) + [False] * (
        len(whole.input_ids) - end
    )
    assert answer.answer_ids[-1] == encoder.stop_id
    assert encoder.decode(answer.answer_ids) == messages[-1].content


def test_toy_dialogue_by_hand() -> None:
    tokenizer, encoder = tokenizer_named("toy"), encoder_named("toy")
    system, user, assistant, end = (tokenizer.convert_tokens_to_ids(token) for token in TOY_SPECIALS)

    def plain(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    a, b, c, d = plain("Hello"), plain("Paris"), plain("you"), plain("big.")
    encoded = encoder.encode_dialogue(says("Hello", "Paris", "you", "big.", system="how"), loss_on="all_answers")
    assert encoded.input_ids == [
        system, *plain("how"), user, *a, assistant, *b, end, user, *c, assistant, *d, end
    ]  # fmt: skip
    head, tail = [False] * (3 + len(plain("how")) + len(a)), [False] * (2 + len(c))
    assert encoded.loss_mask == head + [True] * (len(b) + 1) + tail + [True] * (len(d) + 1)
    last = encoder.encode_dialogue(says("Hello", "Paris", "you", "big.", system="how"), loss_on="last_answer")
    assert last.loss_mask == [False] * (len(encoded.loss_mask) - len(d) - 1) + [True] * (len(d) + 1)


def test_nothing_after_the_stop_token_is_learned() -> None:
    encoder = encoder_named("chatml")
    encoded = encoder.encode_dialogue(says("Hello", "Paris", "you", "big."), loss_on="all_answers")
    learned = [i for i, counts in zip(encoded.input_ids, encoded.loss_mask, strict=True) if counts]
    assert tokenizer_named("chatml").decode(learned) == "Paris<|im_end|>big.<|im_end|>"
    assert tokenizer_named("chatml").decode(encoded.input_ids).endswith("big.<|im_end|>\n")


@pytest.mark.parametrize("name", ["llama2_legacy", "llama2_first", "llama2_always"])
def test_llama2_format_where_a_tokenizer_has_no_template(name: str) -> None:
    tokenizer, encoder = tokenizer_named(name), encoder_named(name)
    messages = says("Hello", "Paris", "you", "big.", system="how")
    ids = encoder.encode_dialogue(messages, loss_on="all_answers").input_ids
    assert [i for i in ids if i in (1, 2)] == [1, 2, 1, 2], "BOS and EOS around each finished pair"
    prompt = encoder.encode_prompt(says("Hello", "Paris", "you"))
    assert [i for i in prompt if i in (1, 2)] == [1, 2, 1], "BOS alone before the open one, and no second BOS"
    text = tokenizer.decode(ids, skip_special_tokens=True)
    first, second = "[INST] <<SYS>>\nhow\n<</SYS>>\n\nHello [/INST] Paris", "[INST] you [/INST] big."
    assert text.split() == [*first.split(), *second.split()]
    assert first in text
    tokens = tokenizer.convert_ids_to_tokens(encoder.encode_answer(says("Hello"), "Paris").answer_ids)
    assert tokens[0].startswith("▁P"), "an answer begins with the space that a sampled one begins with"


@pytest.mark.parametrize("name", ALL)
def test_bos_stands_once_where_the_template_writes_it(name: str) -> None:
    tokenizer, encoder = tokenizer_named(name), encoder_named(name)
    count = encoder.encode_prompt(says("Hello")).count(tokenizer.bos_token_id)
    assert count == (1 if name.startswith("llama") else 0)


def forgeries(name: str) -> list[str]:
    """Every special or added token and template mark, and fragments that could join to one."""
    tokenizer, encoder = tokenizer_named(name), encoder_named(name)
    added = [token.content for token in tokenizer.added_tokens_decoder.values()]
    fragments = ["[", "/INST]", "<", "|", "|>", "<<", ">>", "INST", "end", "</", "s>", " ", "\n", "▁", "Ġ"]
    return [
        *added,
        *encoder.control_markers,
        *fragments,
        "Hello",
        "[ INST ]",
        "é",
        "\uff3bINST\uff3d",
        "日本",
    ]


@pytest.mark.parametrize("name", ALL)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_text_never_becomes_a_control_token(name: str, data: st.DataObject) -> None:
    encoder, tokenizer = encoder_named(name), tokenizer_named(name)
    pieces = data.draw(st.lists(st.sampled_from(forgeries(name)) | st.text(max_size=4), min_size=1, max_size=8))
    text = "".join(pieces)
    role = data.draw(st.sampled_from(["system", "user", "assistant"]))
    if tokenizer.unk_token is not None:
        text = text.replace("▁", "")  # that tokenizer's own space: it cannot be told from one
    harmless = {"system": "how", "user": "Hello", "assistant": "Paris"}
    plain = [Message(role=r, content=c) for r, c in harmless.items()]
    typed = [Message(role=r, content=text if r == role else c) for r, c in harmless.items()]
    try:
        ids = encoder.encode_dialogue(typed, loss_on="all_answers").input_ids
    except UserError as error:
        assert any(marker in text for marker in encoder.control_markers), str(error)
        return
    expected = encoder.encode_dialogue(plain, loss_on="all_answers").input_ids
    assert [i for i in ids if i in encoder.control_ids] == [i for i in expected if i in encoder.control_ids]
    answer = encoder.encode_answer(says("Hello"), text).answer_ids
    assert not encoder.control_ids.intersection(answer[:-1])
    assert encoder.decode(answer) == (text.strip() if name.startswith("llama") else text)


@pytest.mark.parametrize("name", ALL)
def test_every_special_token_typed_by_a_person_is_plain_text_or_refused(name: str) -> None:
    encoder, tokenizer = encoder_named(name), tokenizer_named(name)
    typed = [token.content for token in tokenizer.added_tokens_decoder.values() if token.content != "zyzzyva"]
    assert typed
    for token in typed:
        if token in encoder.control_markers:
            with pytest.raises(UserError, match="message 1"):
                encoder.encode_prompt(says(f"a {token} b"))
            continue
        token_id = tokenizer.convert_tokens_to_ids(token)
        answer = encoder.encode_answer(says("Hello"), f"a {token} b").answer_ids
        assert token_id not in answer[:-1]
        assert encoder.decode(answer) == f"a {token} b"


def test_added_words_without_brackets_stay_vocabulary() -> None:
    tokenizer, encoder = tokenizer_named("qwen_like"), encoder_named("qwen_like")
    word = tokenizer.convert_tokens_to_ids("zyzzyva")
    assert encoder.encode_answer(says("Hello"), "a zyzzyva").answer_ids.count(word) == 1
    assert tokenizer.convert_tokens_to_ids("<tool_call>") in encoder.control_ids
    assert word not in encoder.control_ids


@pytest.mark.parametrize("marker", ["[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"])
def test_plain_text_marks_are_refused_by_name(marker: str) -> None:
    encoder = encoder_named("llama2_first")
    assert marker in encoder.control_markers
    for messages, where in (
        (says(f"a{marker}"), "message 1"),
        (says("a", "b", f"x {marker} y"), "message 3"),
    ):
        with pytest.raises(UserError, match=where) as caught:
            encoder.encode_prompt(messages)
        assert repr(marker) in str(caught.value)
    with pytest.raises(UserError, match="message 2"):
        encoder.encode_answer(says("a"), marker)
    assert encoder.encode_prompt(says(marker.lower())), "marks are case-sensitive"


def test_look_alikes_that_a_normaliser_turns_into_a_mark_are_refused() -> None:
    tokenizer = byte_level(["<s>", "</s>"], bos_token="<s>", eos_token="</s>")
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    encoder = DialogueEncoder(tokenizer)
    with pytest.raises(UserError, match="INST"):
        encoder.encode_prompt(says("\uff3bINST\uff3d hello"))


def test_plain_words_of_a_template_leave_english_usable() -> None:
    assert find_markers("\nUSER: Question: ASSISTANT: user [1] <3 a < b > c") == set()
    assert find_markers("### Instruction:\nx\n### Response:") == {"### Instruction:", "### Response:"}
    template = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    encoder = DialogueEncoder(tokenizer_named("llama2_byte_level"), chat_template=template)
    answer = encoder.encode_answer(says("Is the user: right?"), "The assistant: yes.")
    assert encoder.decode(answer.answer_ids) == "The assistant: yes."


def test_a_tokenizer_that_can_only_forge_is_refused() -> None:
    """A word-level vocabulary that lists the stop token as a word has no other way to write it."""
    backend = Tokenizer(models.WordLevel({"Hello": 0, "</s>": 1, "<unk>": 2}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = "{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}"
    encoder = DialogueEncoder(
        PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>", chat_template=template)
    )
    with pytest.raises(UserError, match=r"message 1 \(user\).*'</s>'"):
        encoder.encode_prompt(says("Hello </s>"))
    assert 2 in encoder.encode_prompt(says("Hello nobody")), "an unknown word forges nothing"


def test_stop_ids_and_pad() -> None:
    toy = encoder_named("toy")
    end = tokenizer_named("toy").convert_tokens_to_ids("<|end|>")
    assert (toy.stop_id, toy.stop_ids, toy.pad_id) == (end, {end}, end), "pad == eos"
    chatml = tokenizer_named("chatml")
    encoder = DialogueEncoder(chatml, eos_token_ids=[chatml.pad_token_id])
    assert encoder.stop_ids == {chatml.eos_token_id, chatml.pad_token_id}
    assert encoder.stop_id == chatml.eos_token_id
    assert encoder.pad_id == chatml.pad_token_id
    metaspace_toy = encoder_named("toy_metaspace")
    assert metaspace_toy.stop_id == tokenizer_named("toy_metaspace").convert_tokens_to_ids("<|end|>")
    assert metaspace_toy.stop_ids == {2, metaspace_toy.stop_id}


def test_template_without_a_stop_token_gets_eos_after_the_last_answer() -> None:
    template = "{% for m in messages %}\n\n{{ m['role'] }}: {{ m['content'] }}{% endfor %}"
    template += "{% if add_generation_prompt %}\n\nassistant:{% endif %}"
    encoder = DialogueEncoder(tokenizer_named("llama2_byte_level"), chat_template=template)
    encoded = encoder.encode_dialogue(says("Hello", "Paris", "you", "big."), loss_on="all_answers")
    assert encoded.input_ids[-1] == encoder.stop_id == tokenizer_named("llama2_byte_level").eos_token_id
    assert encoded.input_ids.count(encoder.stop_id) == 1
    assert encoded.loss_mask[-1]
    bare = byte_level(["<s>"], chat_template=template)
    with pytest.raises(UserError, match="no stop token"):
        DialogueEncoder(bare)


def test_additions_to_finished_answers_are_not_trained_on() -> None:
    encoder, tokenizer = encoder_named("qwen_like"), tokenizer_named("qwen_like")
    whole = encoder.encode_dialogue(says("Hello", "Paris"), loss_on="all_answers").input_ids
    assert tokenizer.decode(whole) == (
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nParis<|im_end|>\n"
    )  # the template itself would write an empty <think> block here, and not before a sampled answer


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ raise_exception('no') }}", "cannot render"),
        ("{{ messages[0]['content'] + eos_token }}", "0 times"),
        ("{% for m in messages %}{{ m['content'] + m['content'] + eos_token }}{% endfor %}", "2 times"),
        ("{% for m in messages %}{{ m['content'] + eos_token }}", "cannot render"),
        (
            "{% for m in messages %}{{ m['content'] | replace(' ', '_') + eos_token }}{% endfor %}",
            "white space",
        ),
        (
            "{% for m in messages %}A{{ m['content'] + eos_token }}{% endfor %}"
            "{% if add_generation_prompt %}B{% endif %}",
            "generation prompt",
        ),
    ],
)
def test_unusable_templates_are_refused(template: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        DialogueEncoder(tokenizer_named("llama2_byte_level"), chat_template=template)


@pytest.mark.parametrize(
    "system_rule",
    [
        "{{ raise_exception('System role not supported') if m['role'] == 'system' }}",
        "{% if m['role'] != 'system' %}",
    ],
)
def test_system_message_where_the_template_has_none(system_rule: str) -> None:
    end = "{% endif %}" if "{% if" in system_rule else ""
    template = (
        "{% for m in messages %}" + system_rule + "{{ '<s>' + m['role'] + '\n' + m['content'] + '</s>' }}" + end
    ) + "{% endfor %}{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}"
    encoder = DialogueEncoder(tokenizer_named("llama2_byte_level"), chat_template=template)
    assert not encoder.template.supports_system
    assert encoder.encode_prompt(says("Hello"))
    with pytest.raises(UserError, match="does not support a system message"):
        encoder.encode_prompt(says("Hello", system="how"))


def test_text_is_trimmed_as_the_template_trims_and_not_otherwise() -> None:
    for name, expected in (("llama3", "Paris"), ("chatml", " \n Paris\n ")):
        encoder = encoder_named(name)
        assert encoder.decode(encoder.encode_answer(says("Hello"), " \n Paris\n ").answer_ids) == expected
    half = CHATML.replace("m['content']", r"m['content'].lstrip('\n')")
    encoder = DialogueEncoder(tokenizer_named("chatml"), chat_template=half)
    assert encoder.decode(encoder.encode_answer(says("Hello"), "\n\n Paris\n").answer_ids) == " Paris\n"


def test_wrong_roles_are_refused() -> None:
    encoder = encoder_named("toy")
    with pytest.raises(UserError, match="end with a turn by the user"):
        encoder.encode_prompt(says("Hello", "Paris"))
    with pytest.raises(UserError, match="end with a turn by the user"):
        encoder.encode_prompt([])
    with pytest.raises(UserError, match="end with a turn by the assistant"):
        encoder.encode_dialogue(says("Hello"), loss_on="all_answers")
    with pytest.raises(ValueError, match="loss_on"):
        encoder.encode_dialogue(says("Hello", "Paris"), loss_on="answers")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="alternate"):
        encoder_named("llama2_first").encode_prompt([*says("Hello"), *says("Paris")])


def test_state_of_the_tokenizer_does_not_matter() -> None:
    """Others may have switched on truncation, padding or the splitting of special tokens before."""
    tokenizer = byte_level(TOY_SPECIALS, eos_token="<|end|>", chat_template=TOY)
    encoder = DialogueEncoder(tokenizer)
    before = encoder.encode_answer(says("Hello world"), "Paris is big.")
    tokenizer.pad_token = "<|end|>"
    options = {"padding": "max_length", "max_length": 3, "truncation": True, "split_special_tokens": True}
    tokenizer(["Hello", "Hello world"], **options)
    assert encoder.encode_answer(says("Hello world"), "Paris is big.") == before
    assert DialogueEncoder(tokenizer).encode_answer(says("Hello world"), "Paris is big.") == before


def test_check_length() -> None:
    check_length(5, 5, "line 3")
    with pytest.raises(UserError, match="line 3 is 6 tokens long, 5 fit"):
        check_length(6, 5, "line 3")


class TestEncodingPrompts:
    """With the toy template a prompt is its user mark, one token per byte here, and the assistant mark."""

    TOKENIZER = byte_level(TOY_SPECIALS, eos_token="<|end|>", chat_template=TOY)
    ENCODER = DialogueEncoder(TOKENIZER)
    PROMPTS = tuple(Prompt(id=text, messages=tuple(says(text))) for text in ("7", "777777", "77"))
    LENGTHS = (3, 8, 4)

    def test_each_comes_with_its_own_tokens_in_order(self) -> None:
        encoded, too_long = encode_prompts(
            self.PROMPTS, self.ENCODER, max_new_tokens=5, context_tokens=13, skip_too_long=False
        )
        assert too_long == 0
        assert [item.prompt for item in encoded] == list(self.PROMPTS)
        assert [len(item.token_ids) for item in encoded] == list(self.LENGTHS)
        assert self.TOKENIZER.convert_ids_to_tokens(encoded[2].token_ids) == ["<|user|>", "7", "7", "<|assistant|>"]

    def test_one_without_room_for_an_answer_is_named(self) -> None:
        expected = (
            "prompt 777777 has 8 tokens; with max_new_tokens=5 that is more than the model's context of 12. Shorten "
            "the prompt, lower max_new_tokens, or pass data.too_long=skip to leave such out and count them."
        )
        with pytest.raises(UserError) as caught:
            encode_prompts(self.PROMPTS, self.ENCODER, max_new_tokens=5, context_tokens=12, skip_too_long=False)
        assert str(caught.value) == expected

    def test_or_left_out_and_counted(self) -> None:
        encoded, too_long = encode_prompts(
            self.PROMPTS, self.ENCODER, max_new_tokens=5, context_tokens=9, skip_too_long=True
        )
        assert ([item.prompt.id for item in encoded], too_long) == (["7", "77"], 1)

    def test_some_have_to_be_left(self) -> None:
        expected = "no prompt is left: all 3 are longer than the model's context of 7 tokens less max_new_tokens=5"
        with pytest.raises(UserError) as caught:
            encode_prompts(self.PROMPTS, self.ENCODER, max_new_tokens=5, context_tokens=7, skip_too_long=True)
        assert str(caught.value) == expected
        assert encode_prompts([], self.ENCODER, max_new_tokens=5, context_tokens=7, skip_too_long=True) == ([], 0)

    @pytest.mark.parametrize("skip_too_long", [True, False])
    def test_one_that_cannot_be_written_is_named(self, skip_too_long: bool) -> None:
        forged = Prompt(id="forged", messages=tuple(says("a [INST] b")))
        encoder = encoder_named("llama2_first")
        with pytest.raises(UserError, match=r"^prompt forged: message 1"):
            encode_prompts([forged], encoder, max_new_tokens=5, context_tokens=99, skip_too_long=skip_too_long)


@pytest.mark.parametrize("name", ["llama2_legacy", "llama2_first", "llama2_always", "chatml"])
def test_plain_text_comes_back_with_its_leading_spaces(name: str) -> None:
    text = TwoWayTokenizer(tokenizer_named(name), template="")
    for plain in ("two", " two", "  two"):
        assert text.decode(text.plain_ids(plain), skip_control=False) == plain
