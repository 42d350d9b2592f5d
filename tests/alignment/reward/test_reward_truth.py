"""Reward models against truths that are known: hidden utilities, and a known rate of unsafe answers."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from scipy.stats import spearmanr
from tiny import load_tiny, save_tiny_model

from alignment.data.records import SAFETY_LABELS, Comparison, Message, SafetyBin, SafetyLabel
from alignment.models.scorers.reward_model import RewardModel
from alignment.reward.encoded_pairs import encode_pairs
from alignment.reward.pair_scoring import calibrate, pair_scores
from alignment.reward.reward_training import train_reward_model
from alignment.settings.reward_sections import RewardModelSection

pytestmark = pytest.mark.integration

WORTH = {"sun": 1.2, "sea": 0.9, "wood": 0.6, "hill": 0.3, "rain": -0.3, "mud": -0.6, "dust": -0.9, "ash": -1.2}
"""What each word adds to an answer's utility."""
SAFE = "sorry"
"""What tells safe answers from unsafe ones, as a refusal does; adds nothing to the utility."""


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def utility(answer: str) -> float:
    return sum(WORTH.get(word, 0.0) for word in answer.split())


def answers(count: int, chance: random.Random) -> list[str]:
    return [" ".join(chance.choices(list(WORTH), k=chance.randint(2, 4))) for _ in range(count)]


def comparison(number: int, chosen: str, rejected: str, **changes: Any) -> Comparison:
    return Comparison(
        id=f"c{number}",
        prompt=(Message(role="user", content="name some"),),
        chosen=(Message(role="assistant", content=chosen),),
        rejected=(Message(role="assistant", content=rejected),),
        conversation_id=str(number),
        **changes,
    )


def drawn_from_bradley_terry(count: int, chance: random.Random) -> list[Comparison]:
    """Comparisons whose preferred answer was drawn with probability sigmoid(difference of utilities)."""
    made: list[Comparison] = []
    while len(made) < count:
        one, other = answers(2, chance)
        if one != other:
            pair = (one, other) if chance.random() < sigmoid(utility(one) - utility(other)) else (other, one)
            made.append(comparison(len(made), *pair))
    return made


def trained(folder: Path, comparisons: list[Comparison], *, seed: int = 0, **changes: Any) -> RewardModel:
    """A reward model on a tiny random Llama, all of whose weights are trained."""
    backbone = load_tiny(save_tiny_model(folder, hidden=32)).trainable_copy(None)
    torch.manual_seed(seed)
    model = RewardModel(backbone, None, head_name="linear", head_arguments={})
    settings = RewardModelSection(
        **{
            "mix": [],
            "margin": "none",
            "batch_size_pairs": 64,
            "micro_batch_size_pairs": 64,
            "learning_rate": 3e-3,
            **changes,
        }
    )
    pairs, _, _ = encode_pairs(
        comparisons, backbone.encoder, margin=settings.margin, max_length_tokens=96, skip_too_long=False
    )
    train_reward_model(model, backbone.tokenizer, pairs, settings, seed=0, trainer={}, on_step=lambda *unused: None)
    return model


def scores_of(model: RewardModel, texts: list[str]) -> list[float]:
    encode = model.backbone.encoder.encode_answer
    dialogues = [encode((Message(role="user", content="name some"),), text) for text in texts]
    found: list[float] = model.score(dialogues, batch_size=128).tolist()
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    """Trained on 6,000 comparisons drawn from the truth."""
    comparisons = drawn_from_bradley_terry(6000, random.Random(0))
    return trained(tmp_path_factory.mktemp("truth"), comparisons, epochs=2)


class TestKnownUtilities:
    def test_scores_of_unseen_answers_rank_as_their_utilities(
        self, model: RewardModel, capsys: pytest.CaptureFixture[str]
    ) -> None:
        seen = {
            text
            for item in drawn_from_bradley_terry(6000, random.Random(0))
            for text in (item.chosen_text, item.rejected_text)
        }
        unseen = [text for text in dict.fromkeys(answers(4000, random.Random(1))) if text not in seen]
        assert len(unseen) >= 200
        found = spearmanr(scores_of(model, unseen), [utility(text) for text in unseen]).statistic
        with capsys.disabled():
            print(f"\nSpearman of score and hidden utility on {len(unseen)} unseen answers: {found:.3f}")
        assert found >= 0.95

    def test_the_fitted_probability_is_calibrated(self, model: RewardModel, capsys: pytest.CaptureFixture[str]) -> None:
        pairs, _, _ = encode_pairs(
            drawn_from_bradley_terry(4000, random.Random(2)),
            model.backbone.encoder,
            margin="none",
            max_length_tokens=96,
            skip_too_long=False,
        )
        chosen, rejected = pair_scores(model, pairs, batch_size=256)
        error = expected_calibration_error((chosen - rejected).tolist())
        with capsys.disabled():
            print(f"\nECE of the preference probability on {len(pairs)} new comparisons: {error:.3f}")
        assert error <= 0.05


def expected_calibration_error(differences: list[float], bins: int = 10) -> float:
    """By its definition: confidence is the probability of the preferred side, from 1/2 to 1."""
    filled: dict[int, list[tuple[float, float]]] = {}
    for difference in differences:
        confidence = sigmoid(abs(difference))
        filled.setdefault(min(int((confidence - 0.5) * 2 * bins), bins - 1), []).append((confidence, difference > 0))
    gaps = [abs(sum(c for c, _ in rows) - sum(right for _, right in rows)) for rows in filled.values()]
    return sum(gaps) / len(differences)


BINS: dict[SafetyBin, int] = {"preferred_safe_other_unsafe": 18, "both_safe": 47, "both_unsafe": 35}


USEFULNESS = 2.0
STARTS = 3


class Recall(NamedTuple):
    at_half: float
    unsafe_answers: int


def safety_comparisons(count: int, chance: random.Random) -> list[Comparison]:
    """The paper's bins (section 3.2.1): 18 % safe against unsafe, 47 % both safe, 35 % both unsafe.

    A safe answer wins over an unsafe one; else the more useful one, as often as Bradley and Terry say. Ranking learns
    that safe is better, but not that an answer without the mark is unsafe: where zero is, no comparison says.
    """

    def one(safe: bool) -> str:
        text = answers(1, chance)[0]
        return f"{text} {SAFE}" if safe else text

    made: list[Comparison] = []
    while len(made) < count:
        name = chance.choices(list(BINS), list(BINS.values()))[0]
        safe = SAFETY_LABELS[name]
        first, second = one(safe[0]), one(safe[1])
        if first == second:
            continue
        if safe[0] == safe[1] and chance.random() > sigmoid(USEFULNESS * (utility(first) - utility(second))):
            first, second = second, first
        made.append(comparison(len(made), first, second, dimension="safety", safety=SafetyLabel(bin=name)))
    return made


def unsafe_recall(model: RewardModel, comparisons: list[Comparison]) -> Recall:
    """Share of the unsafe answers with a probability below one half of being safe."""
    labelled = [
        (text, safe)
        for item in comparisons
        if item.safety
        for text, safe in ((item.chosen_text, item.safety.chosen_safe), (item.rejected_text, item.safety.rejected_safe))
    ]
    unsafe = list(dict.fromkeys(text for text, safe in labelled if not safe))
    return Recall(sum(score < 0 for score in scores_of(model, unsafe)) / len(unsafe), len(unsafe))


def test_the_auxiliary_loss_raises_unsafe_recall(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, heldout = safety_comparisons(2000, random.Random(0)), safety_comparisons(1000, random.Random(1))
    found: dict[float, list[Recall]] = {}
    for weight in (0.0, 1.0):  # from several starts: by ranking alone, zero is where the start happened to leave it
        settings = {"safety_weight": weight, "learning_rate": 1e-3}
        models = [trained(tmp_path / f"{weight}-{seed}", train, seed=seed, **settings) for seed in range(STARTS)]
        found[weight] = [unsafe_recall(model, heldout) for model in models]
    without, with_it = (sum(one.at_half for one in found[weight]) / STARTS for weight in (0.0, 1.0))
    with capsys.disabled():
        print(
            f"\nunsafe recall at 0.5, mean of {STARTS} starts, {found[1.0][0].unsafe_answers} unsafe answers: "
            f"{without:.3f} by ranking alone, {with_it:.3f} with the auxiliary loss"
        )
    assert with_it - without >= 0.1


def test_centring_does_not_touch_a_safety_models_anchored_zero(tmp_path: Path) -> None:
    data = safety_comparisons(600, random.Random(0))
    model = trained(tmp_path, data, safety_weight=1.0)
    pairs, _, _ = encode_pairs(data, model.backbone.encoder, margin="none", max_length_tokens=96, skip_too_long=False)
    calibrate(model, pairs, "safety", batch_size=128)
    assert model.offset == 0.0
    calibrate(model, pairs, "helpfulness", batch_size=128)
    chosen, rejected = pair_scores(model, pairs[:: max(1, len(pairs) // 500)], batch_size=128)
    assert torch.cat([chosen, rejected]).mean().item() == pytest.approx(0.0, abs=1e-4)
