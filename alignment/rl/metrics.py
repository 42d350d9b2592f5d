"""What one batch of PPO says about the policy, before the update; docs/ppo.md explains every key."""

from __future__ import annotations

from alignment.masking import masked_mean, masked_sum, masked_variance
from alignment.rl.advantages import Advantages, kl_k1, kl_k3
from alignment.rl.health import repeated_ngrams
from alignment.rl.losses import explained_variance
from alignment.rl.rollout import GatedRollout


def rollout_metrics(gated: GatedRollout, advantages: Advantages, *, beta: float) -> dict[str, float]:
    """What one batch says about the policy, before the update."""
    rollout, episodes = gated.rollout, gated.rollout.episodes
    mask = episodes.response_mask
    kl_per_answer = masked_sum(kl_k1(rollout.old_logprobs, rollout.ref_logprobs), mask, dim=1)
    plain_advantages = advantages.returns - rollout.old_values
    safety = {} if rollout.safety is None else {"objective/safety": rollout.safety.mean().item()}
    disagreement = {f"objective/{name}_disagreement": item.mean().item() for name, item in rollout.disagreement.items()}
    k3_per_answer = masked_sum(kl_k3(rollout.old_logprobs, rollout.ref_logprobs), mask, dim=1)
    return {
        "objective/beta": beta,
        "objective/kl": kl_per_answer.mean().item(),
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
