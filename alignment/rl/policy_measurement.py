"""Answers of a policy to prompts, with everything that needs a model: length, stop, KL to SFT, reward scores.

Verdicts are added by whoever may know the judge (``stages.evaluate``).

Shapes: B answers, R response.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from alignment.data.records import JudgedAnswer, Prompt
from alignment.models.backbone import Backbone
from alignment.models.sampling.batch_sampling import answer_prompts
from alignment.models.scorers.reward_scorer import RewardScorer
from alignment.rl.rollout import Episodes, reward_judgments, score_responses
from alignment.settings.model_sections import SamplingSection
from alignment.tensors.masking import masked_sum

SCORING_BATCH = 64
"""Answers that are scored together where nothing is trained; no result depends on it."""


def measure_policy(
    policy_backbone: Backbone,
    role: str | None,
    prompts: Sequence[Prompt],
    sampling: SamplingSection,
    *,
    sft_backbone: Backbone,
    reward_models: Mapping[str, RewardScorer],
    on_batch: Callable[[int], None] | None = None,
) -> list[JudgedAnswer]:
    """One answer per prompt, in the order of the prompts; a prompt may be repeated, to get several.

    Args:
        policy_backbone: holds the policy; the SFT backbone itself, except for the base model.
        role: the policy's adapter, ``None`` for the bare model.
        prompts: what to answer.
        sampling: temperature and length.
        sft_backbone: the frozen SFT model, for the KL, with the reward models' adapters.
        reward_models: any of ``helpfulness``, ``safety`` and ``guard``.
        on_batch: called with the number of answers just drawn.
    """
    # Draw the answers.
    prompt_ids, samples = answer_prompts(policy_backbone, role, prompts, sampling, on_batch=on_batch)
    episodes = Episodes.collect(
        prompts, prompt_ids, samples, pad_id=sft_backbone.encoder.pad_id, device=sft_backbone.device
    )
    # KL to SFT (B,): one pass under the policy, one under the SFT model unless that is the policy itself.
    temperature = sampling.temperature
    own = score_responses(policy_backbone, role, episodes, temperature=temperature, micro_batch_size=SCORING_BATCH)
    is_sft = policy_backbone is sft_backbone and role is None
    sft = (
        own
        if is_sft
        else score_responses(sft_backbone, None, episodes, temperature=temperature, micro_batch_size=SCORING_BATCH)
    )
    kl = masked_sum(own.logprobs - sft.logprobs, episodes.response_mask, dim=1)
    # The reward models' scores, each (B,).
    judged_by = reward_judgments(reward_models, episodes, batch_size=SCORING_BATCH)
    scores = {name: found.scores for name, found in judged_by.items()}
    # One record per answer.
    rows: dict[str, list[JudgedAnswer]] = defaultdict(list)
    for row, prompt in enumerate(episodes.prompts):
        judged = JudgedAnswer(
            prompt_id=prompt.id,
            kind=prompt.kind,
            group=prompt.group,
            dimension=prompt.dimension,
            answer=sft_backbone.encoder.decode(episodes.response_ids(row)),
            helpfulness=None,
            unsafe=None,
            refusal=None,
            n_tokens=int(episodes.response_lengths[row]),
            stopped=bool(episodes.stopped[row]),
            kl_nats=kl[row].item(),
            reward_helpfulness=scores["helpfulness"][row].item() if "helpfulness" in scores else None,
            reward_safety=scores["safety"][row].item() if "safety" in scores else None,
            reward_guard=scores["guard"][row].item() if "guard" in scores else None,
        )
        rows[prompt.id].append(judged)
    # Episodes are sorted by length: back to the order of the prompts.
    return [rows[prompt.id].pop(0) for prompt in prompts]
