"""Answers of a policy to held-out prompts with all that needs a model (length, stop, KL to SFT, scores), and the guard.

Verdicts are added by whoever may know the judge (``stages.evaluate``).

The guard tells whether a policy has learned to please its reward models rather than to be better. It is a reward model
that pays no policy, trained on comparisons that the others have not seen. Gao et al. 2023 (arXiv:2210.10760) tell
over-optimisation by a gold reward that falls while the proxy rises; the guard stands in for it. The policy is compared
with itself on the same held-out prompts, so differences are paired.

Shapes: B answers, R response.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from scipy import stats

from alignment.data.encoded_dialogues import EncodedPrompt
from alignment.data.jsonl_and_raw_rows import read_jsonl
from alignment.data.records import JudgedAnswer, Prompt, Record
from alignment.figures.intervals import Figure
from alignment.masks_padding_logprobs import masked_sum
from alignment.models.backbone import Role
from alignment.models.sampling.batch_sampling import answer_prompts
from alignment.models.scorers.scorer_protocol import RewardScorer
from alignment.rl.rollout import Episodes, order_of_episodes, reward_judgments, score_responses
from alignment.settings.sections import SamplingSection

SCORING_BATCH = 64
"""Answers that are scored together where nothing is trained; no result depends on it."""


def measure_policy(
    policy: Role,
    prompts: Sequence[EncodedPrompt],
    sampling: SamplingSection,
    *,
    sft: Role,
    reward_models: Mapping[str, RewardScorer],
    on_batch: Callable[[int], None] | None = None,
) -> list[JudgedAnswer]:
    """One answer per prompt, in the order of the prompts; a prompt may be repeated, to get several.

    Args:
        policy: an adapter on the SFT model, or a model of its own.
        prompts: what to answer, encoded for the policy's backbone.
        sampling: temperature and length.
        sft: the frozen SFT model, for the KL; its backbone has the reward models' adapters.
        reward_models: any of ``helpfulness``, ``safety`` and ``guard``.
        on_batch: called with the number of answers just drawn.
    """
    # Draw the answers.
    answers = answer_prompts(policy, prompts, sampling, on_batch=on_batch)
    encoder = sft.backbone.encoder
    episodes = Episodes.collect(prompts, answers, pad_id=encoder.pad_id, device=sft.backbone.device)
    # KL to SFT (B,): one pass under the policy, one under the SFT model unless that is the policy itself.
    passed = partial(
        score_responses, episodes=episodes, temperature=sampling.temperature, micro_batch_size=SCORING_BATCH
    )
    own = passed(policy)
    by_sft = own if policy == sft else passed(sft)
    kl = masked_sum(own.logprobs - by_sft.logprobs, episodes.response_mask, dim=1)
    # The reward models' scores, each (B,).
    judged_by = reward_judgments(reward_models, episodes, batch_size=SCORING_BATCH)
    scores = {name: found.scores for name, found in judged_by.items()}
    # One record per answer, each at the place of its prompt: episodes are sorted by length.
    rows: dict[int, JudgedAnswer] = {}
    for row, place in enumerate(order_of_episodes(prompts, answers).tolist()):
        prompt = prompts[place].prompt
        rows[place] = JudgedAnswer(
            prompt_id=prompt.id,
            kind=prompt.kind,
            group=prompt.group,
            dimension=prompt.dimension,
            answer=encoder.decode(episodes.response_ids(row)),
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
    return [rows[place] for place in range(len(prompts))]


FALSE_ALARMS = 0.05
"""Chance that the interval of a change misses it, in any pair of snapshots, at one look."""


@dataclass(frozen=True)
class HeldoutScores:
    """What the reward models and the guard said of one snapshot, prompt by prompt."""

    update: int
    rewards: tuple[float, ...]
    """Gated raw scores."""
    guards: tuple[float, ...] | None
    """The guard's raw scores; ``None`` without a guard."""

    @property
    def reward(self) -> float:
        """Mean reward."""
        return statistics.fmean(self.rewards)

    @property
    def guard(self) -> float | None:
        """Mean of the guard."""
        return None if self.guards is None else statistics.fmean(self.guards)

    @property
    def merit(self) -> float:
        """What the best snapshot is chosen by: the guard, or without one the reward."""
        return self.reward if self.guard is None else self.guard


def best_of(snapshots: Sequence[HeldoutScores]) -> HeldoutScores | None:
    """The snapshot of the greatest merit, the earliest of equal ones; ``None`` of none."""
    return max(snapshots, key=lambda item: (item.merit, -item.update), default=None)


@dataclass(frozen=True)
class Parting:
    """How reward and guard changed from the best snapshot to the last, on the same prompts."""

    best: int
    last: int
    """The two updates."""
    reward: Figure
    guard: Figure
    """Mean change of each."""

    @property
    def is_overoptimization(self) -> bool:
        """Whether the reward has risen and the guard fallen, each by more than its interval."""
        return self.reward["ci95"][0] > 0 > self.guard["ci95"][1]


def parting(snapshots: Sequence[HeldoutScores]) -> Parting | None:
    """How reward and guard changed since the guard's best snapshot; ``None`` without a guard, or at the best.

    The intervals are Student's t over prompts, for differences on the same prompt. The best of many noisy snapshots
    looks better than it is: they hold for all pairs of snapshots together (Bonferroni).
    """
    best = best_of(snapshots)
    if best is None or best is snapshots[-1] or len(best.rewards) < 2:
        return None
    last = snapshots[-1]
    if last.guards is None or best.guards is None:
        return None
    pairs = math.comb(len(snapshots), 2)
    return Parting(
        best.update,
        last.update,
        reward=_change(best.rewards, last.rewards, pairs),
        guard=_change(best.guards, last.guards, pairs),
    )


def _change(before: Sequence[float], now: Sequence[float], comparisons: int) -> Figure:
    """Mean of paired differences, with an interval that holds for so many comparisons together."""
    changes = [after - earlier for earlier, after in zip(before, now, strict=True)]
    mean, n = statistics.fmean(changes), len(changes)
    error = statistics.stdev(changes) / math.sqrt(n)
    half = float(stats.t.ppf(1 - FALSE_ALARMS / (2 * comparisons), n - 1)) * error
    return Figure(value=mean, ci95=[mean - half, mean + half], n=n)


def overoptimized(snapshots: Sequence[HeldoutScores]) -> str | None:
    """What to say if, since its best snapshot, the guard has fallen while the reward has risen; else ``None``.

    Both changes have to be more than noise: their intervals lie on different sides of 0.
    """
    found = parting(snapshots)
    if found is None or not found.is_overoptimization:
        return None
    rise, (low, high) = found.reward["value"], found.reward["ci95"]
    fall, (steepest, least) = -found.guard["value"], found.guard["ci95"]
    return (
        f"over-optimisation: from update {found.best} to {found.last} the reward rose by {rise:.2f} "
        f"(95 % interval {low:.2f} to {high:.2f}) while the guard fell by {fall:.2f} ({-least:.2f} to {-steepest:.2f})"
    )


class Snapshot(Record):
    """One answer of the policy at one update, with its KL to the SFT model."""

    update: int
    prompt: Prompt
    answer: str
    kl_nats: float
    score: float
    guard: float | None = None


def read_snapshots(file: Path) -> dict[int, list[Snapshot]]:
    """Update -> what was written down at it; empty without a file."""
    taken: dict[int, list[Snapshot]] = {}
    for item in read_jsonl(file, Snapshot)[0] if file.is_file() else []:
        taken.setdefault(item.update, []).append(item)
    return taken
