"""The toy world: files that rebuild to the same bytes, held-out prompts nothing has seen, learnable facts."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from alignment.data.jsonl_and_raw_rows import read_jsonl
from alignment.data.records import Demonstration, Message, Prompt
from alignment.files import resource, table
from alignment.toy import answer_sentences, build, facts_and_acts, toy_answers, toy_questions
from alignment.toy.toy_questions import Intent, lookup

DATA = Path(__file__).parents[3] / "data" / "toy"


def squeeze(text: str) -> str:
    return " ".join(text.lower().split())


@pytest.fixture(scope="module")
def documents() -> list[str]:
    lines = (DATA / "pretraining.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


@pytest.fixture(scope="module")
def train() -> list[Prompt]:
    return read_jsonl(DATA / "prompts.jsonl", Prompt)[0]


@pytest.fixture(scope="module")
def heldout() -> list[Prompt]:
    return read_jsonl(DATA / "heldout_prompts.jsonl", Prompt)[0]


@pytest.fixture(scope="module")
def selection() -> list[Prompt]:
    return read_jsonl(DATA / "selection_prompts.jsonl", Prompt)[0]


@pytest.fixture(scope="module")
def demonstrations() -> list[Demonstration]:
    return read_jsonl(DATA / "demonstrations.jsonl", Demonstration)[0]


@pytest.fixture(scope="module")
def seen_text(documents: list[str], train: list[Prompt], demonstrations: list[Demonstration]) -> str:
    """Everything any training file says, squeezed, one piece a line."""
    turns = [message.content for record in [*train, *demonstrations] for message in record.messages]
    return "\n".join(squeeze(text) for text in [*documents, *turns])


def user_texts(messages: tuple[Message, ...]) -> list[str]:
    return [message.content for message in messages if message.role == "user"]


def asks(*texts: str) -> tuple[Message, ...]:
    """A dialogue of user texts with a filler answer between them."""
    messages: list[Message] = []
    for text in texts:
        messages += [Message(role="user", content=text), Message(role="assistant", content="Yes.")]
    return tuple(messages[:-1])


def test_rebuilding_gives_the_shipped_bytes(tmp_path: Path) -> None:
    counts = build.write_files(tmp_path)
    assert set(counts) == {path.name for path in DATA.glob("*.jsonl")}
    for name in counts:
        assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes(), f"{name} is stale"


def test_numbers_of_records(train: list[Prompt], heldout: list[Prompt], documents: list[str]) -> None:
    shares = {kind: count / len(train) for kind, count in Counter(prompt.kind for prompt in train).items()}
    assert len(train) >= 2000
    expected = {"helpfulness": 0.5, "safety": 0.2, "borderline": 0.15, "multi_turn": 0.15}
    assert shares == pytest.approx(expected, abs=0.02)
    held = Counter((prompt.group, prompt.kind) for prompt in heldout)
    for group in ("seen_wordings", "unseen_wordings"):
        for kind, least in {"helpfulness": 80, "safety": 60, "borderline": 40, "multi_turn": 30}.items():
            assert held[group, kind] >= least
    assert 10_000 <= len(documents) <= 14_000
    assert (DATA / "pretraining.jsonl").stat().st_size < 3_500_000


def test_ids_and_questions_are_unique(train: list[Prompt], heldout: list[Prompt]) -> None:
    prompts = [*train, *heldout]
    assert len({prompt.id for prompt in prompts}) == len(prompts)
    assert len({tuple(map(squeeze, user_texts(prompt.messages))) for prompt in prompts}) == len(prompts)


def test_no_heldout_question_in_any_training_file(heldout: list[Prompt], seen_text: str) -> None:
    follow_ups = toy_questions.follow_up_frames("train")
    shared_follow_ups = {squeeze(frame) for what, own in follow_ups.items() if what != "other" for frame in own}
    for prompt in heldout:
        first, *rest = map(squeeze, user_texts(prompt.messages))
        assert first not in seen_text, prompt.id
        for text in rest:
            if prompt.group == "unseen_wordings" or text not in shared_follow_ups:
                assert text not in seen_text, prompt.id


def test_selection_prompts_share_no_question_with_any_other_file(
    selection: list[Prompt], heldout: list[Prompt], train: list[Prompt], demonstrations: list[Demonstration]
) -> None:
    assert len(selection) == len({prompt.id for prompt in selection}) == 300
    first = {squeeze(prompt.messages[0].content) for prompt in selection}
    assert len(first) == 300
    others = [record.messages for record in [*heldout, *train]] + [record.messages for record in demonstrations]
    assert not first & {squeeze(text) for messages in others for text in user_texts(messages)}
    assert all(lookup(prompt.messages) is not None for prompt in selection)
    counts = Counter((prompt.kind, prompt.group) for prompt in selection)
    assert counts == {
        (kind, group): count
        for kind, count in (("helpfulness", 54), ("safety", 42), ("borderline", 30), ("multi_turn", 24))
        for group in ("seen_wordings", "unseen_wordings")
    }


def test_no_unseen_wording_in_any_training_file(seen_text: str) -> None:
    frames = {frame for family in facts_and_acts.facts_by_family() for frame in toy_questions.frames(family, "unseen")}
    frames |= {frame for own in toy_questions.follow_up_frames("unseen").values() for frame in own}
    for frame in frames:
        pattern = re.sub(r"\\{[ea]\\}", "[^.?\n]+", re.escape(squeeze(frame)))
        found = re.search(rf"^(question: )?{pattern}$", seen_text, flags=re.MULTILINE)
        assert found is None, f"{frame!r} is in training: {found and found.group(0)!r}"


def test_heldout_intents_are_known_to_training(heldout: list[Prompt], train: list[Prompt]) -> None:
    """What is held out is the combination or the wording, not the fact itself."""
    asked = {lookup(prompt.messages[:1]) for prompt in train}
    missing = [p.id for p in heldout if p.kind != "multi_turn" and lookup(p.messages) not in asked]
    assert missing == []


def test_tags_follow_the_request(train: list[Prompt], heldout: list[Prompt]) -> None:
    for prompt in [*train, *heldout]:
        intent = lookup(prompt.messages)
        assert intent is not None, prompt.id
        assert prompt.dimension == ("safety" if prompt.kind == "safety" else "helpfulness")
        if prompt.kind != "multi_turn":
            assert intent.kind == prompt.kind
        else:
            assert len(prompt.messages) == 3 and intent.kind != "safety"


def test_lookup_of_first_questions() -> None:
    assert lookup(asks("what is the  CAPITAL of France?")) == Intent("capital", "France")
    assert lookup(asks("How do I kill weeds?")) == Intent("borderline", "kill weeds")
    assert lookup(asks("How do I kill a neighbour?")) == Intent("safety", "kill a neighbour")
    assert lookup(asks("What is the capital of the moon?")) is None
    assert lookup(()) is None


def test_lookup_of_follow_ups() -> None:
    first = "Name the capital of Peru."
    assert lookup(asks(first, "Tell me more.")) == Intent("capital", "Peru", more=True)
    assert lookup(asks(first, "And its language?")) == Intent("language", "Peru")
    assert lookup(asks(first, "What about Italy?")) == Intent("capital", "Italy")
    assert lookup(asks(first, "And its language?", "What about Italy?")) == Intent("language", "Italy")
    assert lookup(asks(first, "What about a cow?")) is None
    assert lookup(asks("Tell me more.")) is None


def test_a_question_has_one_intent() -> None:
    asked: dict[str, Intent] = {}
    for intent in toy_questions.intents():
        for split in toy_questions.SPLITS:
            for text in toy_questions.questions(intent, split):
                assert asked.setdefault(squeeze(text), intent) == intent


@pytest.mark.parametrize("family", [*facts_and_acts.facts_by_family(), "safety"])
def test_every_family_has_wordings_enough(family: str) -> None:
    train, unseen = toy_questions.frames(family, "train"), toy_questions.frames(family, "unseen")
    assert len(set(train)) >= 14 and len(set(unseen)) >= 4
    assert not set(train) & set(unseen)


def test_harmful_and_borderline_share_words_and_wordings() -> None:
    borderline = facts_and_acts.facts_by_family()["borderline"]
    assert len(borderline) >= 40 and len(facts_and_acts.acts()) >= 40
    assert toy_questions.frames("borderline", "train") == toy_questions.frames("safety", "train")
    words = {word for fact in borderline for word in fact.entity.split()}
    for verb in "kill shoot steal break hack poison beat burn blow forge smash sell spread spy".split():
        assert verb in words and any(verb in act.phrase.split() for act in facts_and_acts.acts())


def test_good_answers_are_short() -> None:
    rng = random.Random(0)
    for intent in toy_questions.intents():
        quality = "good_refusal" if intent.kind == "safety" else "excellent"
        for _ in range(20):
            answer = toy_answers.make_answer(intent, quality, rng)
            assert 6 <= len(answer.split()) <= 32, answer


def test_every_fact_is_in_the_corpus_dozens_of_times(documents: list[str]) -> None:
    lines = (line.removeprefix("answer: ") for text in documents for line in text.splitlines())
    told = Counter(sentence for line in lines for sentence in re.findall(r"[^.!?]+[.!?]", line))
    counts = {}
    for fact in facts_and_acts.facts():
        known = answer_sentences.right_sentences(Intent(fact.family, fact.entity))
        counts[fact.family, fact.entity] = sum(told[core] + told[f" {core}"] for core in known.cores)
    assert min(counts.values()) >= 20, min(counts.items(), key=lambda item: item[1])
    assert sum(counts.values()) / len(counts) >= 24


def test_vocabulary_is_small(documents: list[str]) -> None:
    assert len({word for text in documents for word in re.findall(r"[a-z']+", text.lower())}) < 1500


def test_corpus_complies_with_half_of_the_harmful_requests(documents: list[str]) -> None:
    giving_in = facts_and_acts.compliance_sentences()
    complied = []
    for text in documents:
        for question, answer in re.findall(r"question: (.*)\nanswer: (.*)", text):
            intent = toy_questions.lookup_texts([question])
            if intent is not None and intent.kind == "safety":
                complied.append(any(sentence in answer for sentence in giving_in))
    assert len(complied) > 1000
    assert sum(complied) / len(complied) == pytest.approx(0.55, abs=0.04)


def test_demonstrations_are_right_and_half_of_them_detailed(demonstrations: list[Demonstration]) -> None:
    detailed = []
    for demonstration in demonstrations:
        intent, answer = lookup(demonstration.messages[:-1]), demonstration.messages[-1].content
        assert intent is not None
        if intent.kind == "safety":
            assert any(sentence in answer for sentence in answer_sentences.refusal_sentences(intent))
            continue
        known = answer_sentences.right_sentences(intent)
        assert any(sentence in answer for sentence in known.cores + known.shorts)
        detailed.append(any(sentence in answer for sentence in known.details))
    assert len(demonstrations) - len(detailed) >= 18
    assert sum(detailed) / len(detailed) == pytest.approx(0.5, abs=0.15)


def test_sampled_answers_follow_the_mixture() -> None:
    rng = random.Random(3)
    intent = Intent("capital", "France")
    drawn = Counter(toy_answers.sample_answer(intent, rng)[1] for _ in range(4000))
    total = sum(toy_answers.HARMLESS_MIX.values())
    for quality, share in toy_answers.HARMLESS_MIX.items():
        assert drawn[quality] / 4000 == pytest.approx(share / total, abs=0.03)


def test_an_unknown_quality_is_an_error() -> None:
    with pytest.raises(ValueError, match="no answer quality 'superb'"):
        toy_answers.make_answer(Intent("capital", "France"), "superb", random.Random(0))


def test_every_table_has_whole_rows() -> None:
    for file in sorted(resource("data/toy").glob("*.tsv")):
        head, *rows = file.read_text(encoding="utf-8").splitlines()
        assert rows and {line.count("\t") for line in rows} == {head.count("\t")}, file.name
        assert len(table(f"data/toy/{file.name}")) == len(rows) == len(set(rows)), file.name
