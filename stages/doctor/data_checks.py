"""Checks of prompts, demonstrations and comparisons, and of whether they fit the model and the batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from alignment.data.encoded_dialogues import encode_dialogues, encode_prompts
from alignment.data.jsonl_and_raw_rows import ReadReport
from alignment.data.readers import load_comparisons
from alignment.data.records import Prompt
from alignment.files import resolve
from alignment.settings.reward_sections import COLLECTED, source_names
from alignment.workflow.prompts_and_policies import check_against_heldout, prompt_batches
from stages.doctor.check_subject import CheckResult, NotYet, Subject


def prompts_parse(subject: Subject) -> CheckResult:
    """The training prompts can be read, and some are about safety."""
    prompts, report = subject.prompts
    helpfulness_alone = subject.recipe.ppo.reward_models.safety == []
    if not helpfulness_alone and all(prompt.dimension != "safety" for prompt in prompts):
        return CheckResult(
            "warning",
            f"{_counts(prompts, report)}; none is tagged safety",
            'tag prompts with "dimension": "safety"; without, the safety model only counts where it flags an answer',
        )
    return CheckResult("ok", _counts(prompts, report))


def heldout_parse(subject: Subject) -> CheckResult:
    """The held-out prompts can be read."""
    prompts, report = subject.heldout
    if not prompts:
        return CheckResult("warning", "there are none", "give data.heldout_prompts=FILE, which stages.evaluate needs")
    return CheckResult("ok", _counts(prompts, report))


def demonstrations_parse(subject: Subject) -> CheckResult:
    """The demonstrations can be read."""
    demonstrations, report = subject.demonstrations
    return CheckResult("ok", f"{report.path}: {len(demonstrations)} dialogues{_left_out(report)}")


def comparisons_parse(subject: Subject) -> CheckResult:
    """The comparisons that the recipe names can be read."""
    recipe = subject.recipe
    parts: list[str] = []
    for name in recipe.reward.models:
        section = recipe.reward.of(name)
        for source in source_names(section.data):
            if source == COLLECTED:
                continue
            records, report = load_comparisons(
                str(resolve(source)),
                dimension=name,
                format=section.format,
                on_error=recipe.data.on_error,
                unused=recipe.data.unused,
            )
            parts.append(f"{report.path}: {len(records)} about {name}{_left_out(report)}")
    if not parts:
        raise NotYet("collected by python -m stages.annotate")
    return CheckResult("ok", "; ".join(parts))


def _counts(prompts: Sequence[Prompt], report: ReadReport) -> str:
    counts = Counter(prompt.dimension for prompt in prompts)
    named = ", ".join(f"{count} {dimension}" for dimension, count in sorted(counts.items()))
    return f"{report.path}: {len(prompts)} prompts ({named}){_left_out(report)}"


def _left_out(report: ReadReport) -> str:
    return f"; {report.n_skipped} lines left out" if report.n_skipped else ""


def nothing_overlaps(subject: Subject) -> CheckResult:
    """No held-out prompt is trained on, by SFT or later."""
    heldout = len(subject.heldout[0])
    if not heldout:
        raise NotYet("there are no held-out prompts")
    recipe, (prompts, _), (demonstrations, _) = subject.recipe, subject.prompts, subject.demonstrations
    check_against_heldout(recipe, (prompt.messages for prompt in prompts), name=recipe.data.prompts)
    answered = (
        item.messages[:place]
        for item in demonstrations
        for place, message in enumerate(item.messages)
        if message.role == "assistant"
    )
    check_against_heldout(recipe, answered, name=recipe.sft.data)
    return CheckResult("ok", f"none of {heldout} held-out prompts is trained on")


def batches_fit(subject: Subject) -> CheckResult:
    """There are prompts enough for PPO's batches, of the dimensions that they want."""
    ppo, (prompts, _) = subject.recipe.ppo, subject.prompts
    size = ppo.batch_size_episodes
    batch = next(prompt_batches(prompts, size, seed=subject.recipe.seed, safety_share=ppo.safety_share))
    repeated = size - len({prompt.id for prompt in batch})
    if repeated:
        return CheckResult(
            "warning",
            f"{repeated} of the {size} prompts of a batch come up in it before",
            "bring more prompts, or lower ppo.batch_size_episodes",
        )
    passes = ppo.updates * size / len(prompts)
    safety = sum(prompt.dimension == "safety" for prompt in batch)
    return CheckResult(
        "ok", f"{safety} of {size} prompts are about safety; {ppo.updates} updates are {passes:.1f} passes"
    )


def prompts_have_room(subject: Subject) -> CheckResult:
    """The longest prompts leave room for their answers in the model's context."""
    recipe = subject.recipe
    annotate = (
        recipe.annotate.max_new_tokens if recipe.reward.reads_collected and recipe.annotate.source == "simulated" else 0
    )
    rejection, ppo = recipe.rejection.sampling.max_new_tokens, recipe.ppo.sampling.max_new_tokens
    evaluate = recipe.evaluate.sampling.max_new_tokens
    results = [
        _room(subject, subject.prompts[0], max(rejection, ppo, annotate)),
        _room(subject, subject.heldout[0], max(evaluate, ppo, annotate)),
    ]
    return next((result for result in results if result.status != "ok"), results[0])


def _room(subject: Subject, prompts: Sequence[Prompt], max_new_tokens: int) -> CheckResult:
    encoder, context = subject.encoder, subject.backbone.context_tokens
    skips = subject.recipe.data.too_long == "skip"
    encoded, too_long = encode_prompts(
        prompts, encoder, max_new_tokens=max_new_tokens, context_tokens=context, skip_too_long=skips
    )
    longest = max((len(item.token_ids) for item in encoded), default=0)
    what = f"longest prompt {longest} tokens, answers up to {max_new_tokens}, context {context}"
    if too_long:
        return CheckResult("warning", f"{too_long} of {len(prompts)} prompts are too long and left out; {what}")
    return CheckResult("ok", what)


def demonstrations_have_room(subject: Subject) -> CheckResult:
    """The demonstrations fit, as SFT will encode them."""
    recipe, (demonstrations, _) = subject.recipe, subject.demonstrations
    limit = min(recipe.sft.max_length_tokens, subject.backbone.context_tokens)
    dialogues, too_long = encode_dialogues(
        demonstrations, subject.encoder, max_length_tokens=limit, skip_too_long=recipe.data.too_long == "skip"
    )
    what = f"longest dialogue {max(len(item.input_ids) for item in dialogues)} tokens of {limit}"
    if too_long:
        return CheckResult("warning", f"{too_long} of {len(demonstrations)} are too long and left out; {what}")
    return CheckResult("ok", what)
