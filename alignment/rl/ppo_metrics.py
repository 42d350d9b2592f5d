"""What one batch of PPO says about the policy, before the update; docs/ppo.md explains every key."""

from __future__ import annotations

from collections.abc import Sequence

from alignment.data.encoded_dialogues import Encoder, has_mark
from alignment.masks_padding_logprobs import masked_mean, masked_sum, masked_variance
from alignment.rl.ppo_math import Advantages, explained_variance, kl_k3
from alignment.rl.rollout import Episodes, GatedRollout


def rollout_metrics(gated: GatedRollout, advantages: Advantages) -> dict[str, float]:
    """What one batch says about the policy, before the update."""
    rollout, episodes = gated.rollout, gated.rollout.episodes
    mask = episodes.response_mask
    plain_advantages = advantages.returns - rollout.old_values
    safety = {} if rollout.safety is None else {"objective/safety": rollout.safety.mean().item()}
    disagreement = {f"objective/{name}_disagreement": item.mean().item() for name, item in rollout.disagreement.items()}
    k3_per_answer = masked_sum(kl_k3(rollout.old_logprobs, rollout.ref_logprobs), mask, dim=1)
    return {
        "objective/kl": rollout.kl.mean().item(),
        "objective/kl_k3": k3_per_answer.mean().item(),
        "objective/entropy": masked_mean(rollout.entropy, mask).item(),
        "objective/score": gated.raw_scores.mean().item(),
        "objective/score_std": gated.raw_scores.std(correction=0).item(),
        "objective/helpfulness": rollout.helpfulness.mean().item(),
        **safety,
        **disagreement,
        "objective/routed_to_safety": gated.routed_to_safety.float().mean().item(),
        "rollout/length": episodes.response_lengths.float().mean().item(),
        "rollout/repetition": repeated_ngrams([episodes.response_ids(row) for row in range(len(episodes.prompts))]),
        "rollout/stop_rate": episodes.stopped.float().mean().item(),
        "advantages/std": masked_variance(plain_advantages, mask).sqrt().item(),
        "value/explained_variance": explained_variance(rollout.old_values, advantages.returns, mask).item(),
    }


def marked_answers(episodes: Episodes, encoder: Encoder) -> dict[str, float]:
    """How many answers of a batch hold a mark of the chat template; they stay, for they are what the policy says."""
    # Without plain-text marks there is nothing to look for.
    answers = range(len(episodes.prompts)) if encoder.control_markers else ()
    found = [has_mark(encoder.decode(episodes.response_ids(row)), encoder) for row in answers]
    return {"rollout/marked": float(sum(found))}


NGRAM = 3


def repeated_ngrams(answers: Sequence[Sequence[int]], *, n: int = NGRAM) -> float:
    """Share of an answer's n-grams of tokens that occurred before in it, mean over answers: ``rollout/repetition``.

    0 where nothing is said twice, near 1 in a loop. An answer shorter than ``n`` counts as 0.

    Args:
        answers: token ids of each answer.
        n: tokens that have to be the same.
    """
    return sum(_repeated_share(ids, n) for ids in answers) / len(answers) if answers else 0.0


def _repeated_share(ids: Sequence[int], n: int) -> float:
    ngrams = [tuple(ids[start : start + n]) for start in range(len(ids) - n + 1)]
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0
