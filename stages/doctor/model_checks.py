"""Checks of the model, its tokenizer and chat template, and the reward models on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from alignment.data.encoded_dialogues import EncodedAnswer
from alignment.data.records import Dimension, Message
from alignment.models.scorers.load_reward_models import load_reward_models
from alignment.models.scorers.scorer_protocol import RewardScorer
from stages.doctor.check_subject import CheckResult, NotYet, Subject

SPARE_EMBEDDINGS = 0.05
"""Share of the embeddings that a tokenizer may leave unused: models round their number up."""
SCORED_DIALOGUES = 8
MIN_SCORE_STD = 1e-4
"""Of different dialogues, in units of the score."""


def model_runs(subject: Subject) -> CheckResult:
    """The model loads, and a forward pass gives finite logits."""
    model = subject.model
    ids = torch.arange(min(16, _n_embeddings(subject)), device=model.device)[None]
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    what = f"{subject.path}: {millions:,.1f} million parameters, {model.dtype}"
    if bool(logits.isfinite().all()):
        return CheckResult("ok", what)
    return CheckResult(
        "problem", f"{what}; its logits are not finite", "try model.dtype=float32, or fetch the model anew"
    )


def vocabulary_fits(subject: Subject) -> CheckResult:
    """Every id that the tokenizer writes has an embedding and a logit."""
    rows, highest = _n_embeddings(subject), max(subject.tokenizer.get_vocab().values())
    what = f"{len(subject.tokenizer)} tokens, {rows} embeddings"
    if highest >= rows:
        return CheckResult(
            "problem",
            f"{what}: the tokenizer writes ids up to {highest}",
            "use the tokenizer that came with the model; after adding tokens, call model.resize_token_embeddings",
        )
    if rows - highest - 1 > SPARE_EMBEDDINGS * rows:
        return CheckResult(
            "warning", f"{what}: many are never used", "make sure that the tokenizer belongs to this model"
        )
    return CheckResult("ok", what)


def _n_embeddings(subject: Subject) -> int:
    """Ids that the model can both read and write."""
    weights = (subject.model.get_input_embeddings().weight, subject.model.get_output_embeddings().weight)
    return min(len(weight) for weight in weights if isinstance(weight, Tensor))


def template_fits(subject: Subject) -> CheckResult:
    """A dialogue begins with its generation prompt, and its answer ends with a stop token."""
    encoder = subject.encoder
    question, answer = Message(role="user", content="What is the sea?"), Message(role="assistant", content="Water.")
    prompt_ids = encoder.encode_prompt([question])
    dialogue = encoder.encode_dialogue([question, answer], loss_on="last_answer")
    learned = [token for token, counts in zip(dialogue.input_ids, dialogue.loss_mask, strict=True) if counts]
    remedy = "give another chat_template in tokenizer_config.json"
    if dialogue.input_ids[: len(prompt_ids)] != prompt_ids:
        return CheckResult("problem", "a dialogue does not begin with its generation prompt", remedy)
    if learned[-1] not in encoder.stop_ids:
        return CheckResult("problem", "an answer does not end with a stop token", remedy)
    if subject.tokenizer.chat_template is None:
        return CheckResult(
            "warning",
            "the tokenizer has no chat template: Llama 2's is used",
            "right for a base model; a chat model needs its own (chat_template in tokenizer_config.json)",
        )
    return CheckResult(
        "ok", f"a prompt begins its dialogue; {len(learned)} of {len(dialogue.input_ids)} tokens are learned"
    )


def special_tokens_fit(subject: Subject) -> CheckResult:
    """Stop tokens and padding are ids that the model knows."""
    encoder, rows = subject.encoder, _n_embeddings(subject)
    beyond = sorted(token for token in {*encoder.stop_ids, encoder.pad_id} if token >= rows)
    if beyond:
        return CheckResult("problem", f"special tokens {beyond} have no embedding", "use the tokenizer of this model")
    names = {
        token: str(subject.tokenizer.convert_ids_to_tokens(token)) for token in {*encoder.stop_ids, encoder.pad_id}
    }
    stops = " or ".join(names[token] for token in sorted(encoder.stop_ids))
    shared = ", which does no harm: masks come from lengths" if encoder.pad_id in encoder.stop_ids else ""
    return CheckResult("ok", f"answers end with {stops}; padding is {names[encoder.pad_id]}{shared}")


def adapters_fit(subject: Subject) -> CheckResult:
    """Adapters can be added to the layers that the recipe names."""
    lora = subject.recipe.model.lora
    backbone = subject.backbone
    backbone.add_adapter("doctor", lora)
    count = sum(parameter.numel() for parameter in backbone.adapter_parameters("doctor"))
    what = f"rank {lora.r}, {count / 1e6:,.2f} million parameters each"
    dropout = f"; dropout {lora.dropout:g} in SFT and the reward models, none in PPO" if lora.dropout > 0 else ""
    return CheckResult("ok", what + dropout)


def reward_model_scores(subject: Subject, *, dimension: Dimension) -> CheckResult:
    """What PPO would be paid by loads, and gives finite, different scores to different dialogues."""
    dialogues = _dialogues(subject)
    scorer = _scorer(subject, dimension)
    scores = scorer.score(dialogues, batch_size=SCORED_DIALOGUES)
    where = ", ".join(map(str, scorer.folders))
    remedy = f"train it again: {subject.folder.command_for('reward', 'overwrite=true')}"
    if not bool(scores.isfinite().all()):
        return CheckResult("problem", f"{where}: a score is not finite", remedy)
    spread = float(scores.std(correction=0))
    what = f"{where}: {len(dialogues)} demonstrations score {float(scores.mean()):.2f} +- {spread:.2f}"
    if len(dialogues) > 1 and spread < MIN_SCORE_STD:
        return CheckResult("problem", f"{what}, all the same", remedy)
    return CheckResult("ok", what)


def _scorer(subject: Subject, dimension: Dimension) -> RewardScorer:
    """The reward models of one dimension, those of the newest round unless the recipe names others."""
    given = subject.recipe.ppo.reward_models
    paths, trained = getattr(given, dimension), Path()
    if paths == []:
        raise NotYet("the recipe wants none")
    if paths is None:
        number = subject.folder.latest_round("reward")
        if number is None:
            raise NotYet(f"not trained yet: {subject.folder.command_for('reward')}")
        trained = subject.folder.require("reward", number)
    alone = given.model_copy(update={"helpfulness": [], "safety": [], dimension: paths})
    return load_reward_models(subject.backbone, trained, alone, subject.recipe.model)[dimension]


def _dialogues(subject: Subject) -> list[EncodedAnswer]:
    """A few demonstrations, each once."""
    chosen = list(dict.fromkeys(item.messages for item in subject.demonstrations[0]))[:SCORED_DIALOGUES]
    encode = subject.encoder.encode_answer
    return [replace(encode(said[:-1], said[-1].content), messages=tuple(said[:-1])) for said in chosen]
