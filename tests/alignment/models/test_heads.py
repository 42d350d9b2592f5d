"""Reward heads and the value head: what they read, their precision, how they are built and saved."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from alignment.errors import UserError
from alignment.models.heads.base_head import RewardHead, TokenValueHead
from alignment.models.heads.known_heads import HEADS, LinearHead, build_head, head_arguments

H = 6
LAST = torch.tensor([2, 0, 3])
LIKELIHOOD = torch.tensor([[-0.5, -2.0], [-1.0, -3.0], [-0.1, -0.2]])


def hidden_states() -> Tensor:
    return torch.randn(3, 4, H, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


class TestLinearHead:
    def test_is_a_dot_product_with_the_last_counting_token(self) -> None:
        hidden = hidden_states()
        head = LinearHead(H)
        weight = head.score.weight.tolist()[0]
        rows = hidden.tolist()
        expected = [sum(w * x for w, x in zip(weight, rows[b][t], strict=True)) for b, t in enumerate(LAST.tolist())]
        assert head(hidden, LAST).tolist() == pytest.approx(expected, abs=1e-6)

    def test_exports_as_a_sequence_classification_head(self) -> None:
        state = LinearHead(H).state_dict()
        assert {name: tuple(value.shape) for name, value in state.items()} == {"score.weight": (1, H)}

    def test_initial_scale(self) -> None:
        std = LinearHead(10_000).score.weight.std().item()
        assert std == pytest.approx(1 / math.sqrt(10_001), rel=0.05)


class TestMlpHead:
    def test_by_an_independent_loop(self) -> None:
        head = build_head("mlp", H, arguments={"width": 3})
        inner, score = (module for module in head.modules() if isinstance(module, nn.Linear))
        hidden = hidden_states()
        expected = []
        for b, t in enumerate(LAST.tolist()):
            units = [
                sum(w * x for w, x in zip(row, hidden[b, t].tolist(), strict=True)) + bias
                for row, bias in zip(inner.weight.tolist(), inner.bias.tolist(), strict=True)
            ]
            gelu = [u * 0.5 * (1 + math.erf(u / math.sqrt(2))) for u in units]
            expected.append(sum(w * g for w, g in zip(score.weight.tolist()[0], gelu, strict=True)))
        assert head(hidden, LAST).tolist() == pytest.approx(expected, abs=1e-6)

    def test_width_is_256_unless_given(self) -> None:
        assert build_head("mlp", H).state_dict()["inner.weight"].shape == (256, H)

    @pytest.mark.parametrize("width", [0, -3, 2.5, "wide", math.inf])
    def test_a_width_that_is_no_count_is_refused(self, width: float | str) -> None:
        with pytest.raises(UserError, match="width"):
            build_head("mlp", H, arguments={"width": width})


class TestAttentionHead:
    def test_starts_as_the_mean_over_the_tokens_that_count(self) -> None:
        head, hidden = build_head("attention", H), hidden_states()
        weight = head.state_dict()["score.weight"].tolist()[0]
        expected = []
        for b, last in enumerate(LAST.tolist()):
            mean = [sum(hidden[b, t, h].item() for t in range(last + 1)) / (last + 1) for h in range(H)]
            expected.append(sum(w * x for w, x in zip(weight, mean, strict=True)))
        assert head(hidden, LAST).tolist() == pytest.approx(expected, abs=1e-6)

    def test_looks_where_its_query_points(self) -> None:
        head = build_head("attention", 2)
        with torch.no_grad():
            head.query.weight.copy_(torch.tensor([[math.sqrt(2) * math.log(3.0), 0.0]]))
            head.score.weight.copy_(torch.tensor([[0.0, 1.0]]))
        hidden = torch.tensor([[[1.0, 8.0], [0.0, 4.0], [5.0, 100.0]]])
        # Weights 3 and 1 for the first two tokens; the third is beyond the last that counts.
        assert head(hidden, torch.tensor([1])).item() == pytest.approx((3 * 8 + 1 * 4) / 4)


class TestEnsembleHead:
    OPINIONS = torch.tensor([[1.0, 2.0, 6.0], [-1.0, -1.0, -1.0]])

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ({"combine": "mean"}, [3.0, -1.0]),
            ({"combine": "min"}, [1.0, -1.0]),
            # Deviations -2, -1, 3: variance 14 / 3.
            ({"combine": "cautious", "caution": 0.5}, [3.0 - 0.5 * math.sqrt(14 / 3), -1.0]),
        ],
    )
    def test_combines(self, arguments: dict[str, float | str], expected: list[float]) -> None:
        head = build_head("ensemble", H, arguments={"members": 3, **arguments})
        assert head.combine(self.OPINIONS).tolist() == pytest.approx(expected)

    def test_each_member_is_a_linear_head(self) -> None:
        head, hidden = build_head("ensemble", H, arguments={"members": 3}), hidden_states()
        for member, weight in enumerate(head.state_dict()["score.weight"]):
            alone = LinearHead(H)
            alone.load_state_dict({"score.weight": weight[None]})
            torch.testing.assert_close(head.opinions(hidden, LAST)[:, member], alone(hidden, LAST))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"members": 1}, "members"),
            ({"members": 2.5}, "members"),
            ({"members": "many"}, "members"),
            ({"combine": "median"}, "mean, min or cautious"),
            ({"caution": "much"}, "caution"),
            ({"caution": -1}, "caution"),
            ({"caution": math.nan}, "caution"),
        ],
    )
    def test_senseless_arguments_are_refused(self, arguments: dict[str, float | str], message: str) -> None:
        with pytest.raises(UserError, match=message):
            build_head("ensemble", H, arguments=arguments)


class TestQuantileHead:
    def test_quantiles_rise_and_the_score_is_the_mean_of_the_lowest_share(self) -> None:
        head = build_head("quantile", H, arguments={"quantiles": 4, "share": 0.5})
        opinions = head.opinions(hidden_states(), LAST)
        assert opinions.shape == (3, 4)
        assert bool((opinions.diff(dim=1) > 0).all())
        assert head.combine(torch.tensor([[1.0, 2.0, 4.0, 9.0]])).tolist() == [1.5]
        assert build_head("quantile", H).combine(torch.tensor([[1.0, 2.0, 4.0, 9.0]])).tolist() == [4.0]

    def test_log_odds_are_those_of_the_mean_probability(self) -> None:
        chosen, rejected = [[0.0, 1.0, 3.0]], [[-1.0, 2.0, 2.5]]
        p = [1 / (1 + math.exp(-(q - other - 0.5))) for q in chosen[0] for other in rejected[0]]
        mean = sum(p) / 9
        found = build_head("quantile", H, arguments={"quantiles": 3}).log_odds(
            torch.tensor(chosen), torch.tensor(rejected), torch.tensor([0.5]), ["helpfulness"]
        )
        assert found.tolist() == [[pytest.approx(math.log(mean / (1 - mean)))]]

    @pytest.mark.parametrize(("ratios", "odds"), [((3, 3, 3), 3), ((1, 3, 9), 43 / 17)])
    def test_a_wider_distribution_is_less_sure(self, ratios: tuple[int, ...], odds: float) -> None:
        """Against quantiles of 0, those of log 1, log 3, log 9 win with 1/2, 3/4, 9/10, on average 43/60."""
        head = build_head("quantile", H, arguments={"quantiles": 3})
        chosen = torch.tensor([ratios]).log()
        log_odds = head.log_odds(chosen, torch.zeros(1, 3), torch.zeros(1), ["safety"])
        assert log_odds.exp().item() == pytest.approx(odds)

    def test_labels_are_about_the_score(self) -> None:
        head = build_head("quantile", H, arguments={"quantiles": 3})
        assert head.anchored(torch.tensor([[1.0, 2.0, 6.0]])).tolist() == [[3.0]]

    @pytest.mark.parametrize("arguments", [{"quantiles": 1}, {"share": 1.5}, {"share": "half"}, {"share": math.nan}])
    def test_senseless_arguments_are_refused(self, arguments: dict[str, float | str]) -> None:
        with pytest.raises(UserError, match=f"reward head 'quantile': {next(iter(arguments))} must be"):
            build_head("quantile", H, arguments=arguments)


class TestObjectivesHead:
    HEAD: ClassVar[dict[str, Any]] = {"objectives": ["honest", "kind", "short"], "weights": [1.0, 0.5, -2.0]}

    def test_score_is_the_weighted_sum(self) -> None:
        head = build_head("objectives", H, arguments=self.HEAD)
        assert head.combine(torch.tensor([[1.0, 2.0, 3.0]])).tolist() == [1 + 1 - 6]
        assert head.anchored(torch.tensor([[1.0, 2.0, 3.0]])).tolist() == [[-4.0]]

    def test_a_comparison_teaches_its_own_objective_alone(self) -> None:
        head = build_head("objectives", H, arguments=self.HEAD)
        chosen = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)
        odds = head.log_odds(chosen, torch.zeros(2, 3), torch.tensor([0.5, 0.0]), ["kind", "short"])
        assert odds.tolist() == [[1.5], [6.0]]
        odds.sum().backward()
        assert chosen.grad is not None and chosen.grad.tolist() == [[0, 1, 0], [0, 0, 1]]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"objectives": []}, "objectives"),
            ({"objectives": "kind"}, "objectives"),
            ({"objectives": ["kind", "kind"]}, "objectives"),
            ({"weights": [1.0]}, "weights"),
            ({"weights": ["much", 1.0]}, "weights"),
            ({"weights": [math.inf, 1.0]}, "reward head .objectives.: weights"),
        ],
    )
    def test_senseless_arguments_are_refused(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            build_head("objectives", H, arguments=arguments)


def test_opinions_that_differ_are_a_disagreement() -> None:
    opinions = torch.tensor([[1.0, 2.0, 6.0], [4.0, 4.0, 4.0]])
    for name, arguments in (("ensemble", {"members": 3}), ("quantile", {"quantiles": 3})):
        found = build_head(name, H, arguments=arguments).disagreement(opinions)
        assert found is not None and found.tolist() == pytest.approx([math.sqrt(14 / 3), 0.0])
    for name in ("linear", "mlp", "attention", "objectives"):
        assert build_head(name, H).disagreement(opinions) is None


@pytest.mark.parametrize("name", sorted(HEADS))
class TestEveryHead:
    def build(self, name: str) -> RewardHead:
        return build_head(name, H)

    def test_other_tokens_never_matter(self, name: str) -> None:
        head = self.build(name)
        clean, dirty = hidden_states(), hidden_states()
        mask = torch.arange(4) <= LAST.unsqueeze(1)
        dirty[mask.logical_not()] = math.nan
        dirty.requires_grad_()
        scores = head(dirty, LAST, LIKELIHOOD)
        assert torch.equal(scores, head(clean, LAST, LIKELIHOOD))
        scores.sum().backward()
        assert dirty.grad is not None
        assert not dirty.grad[mask.logical_not()].any()
        assert dirty.grad[torch.arange(3), LAST].any(dim=1).all()

    def test_the_score_is_what_its_opinions_combine_to(self, name: str) -> None:
        head, hidden = self.build(name), hidden_states()
        opinions = head.opinions(hidden, LAST, LIKELIHOOD)
        assert opinions.shape[0] == 3
        torch.testing.assert_close(head.combine(opinions), head(hidden, LAST, LIKELIHOOD))

    def test_every_parameter_learns(self, name: str) -> None:
        head = self.build(name)
        head(hidden_states(), LAST, LIKELIHOOD).sum().backward()
        assert all(p.grad is not None and bool(p.grad.any()) for p in head.parameters())

    def test_scores_are_float32_even_inside_autocast_and_from_bfloat16(self, name: str) -> None:
        head = self.build(name)
        hidden = hidden_states().bfloat16()
        plain = head(hidden.float(), LAST, LIKELIHOOD)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores = head(hidden, LAST, LIKELIHOOD)
        assert scores.dtype == torch.float32
        assert torch.equal(scores, plain)
        assert head.bfloat16()(hidden, LAST, LIKELIHOOD).dtype == torch.float32

    def test_state_restores_the_same_scores_and_a_missing_weight_is_an_error(self, name: str) -> None:
        head, other = self.build(name), self.build(name)
        hidden = hidden_states()
        assert not torch.equal(head(hidden, LAST, LIKELIHOOD), other(hidden, LAST, LIKELIHOOD))
        state = head.state_dict()
        other.load_state_dict(state)
        assert torch.equal(head(hidden, LAST, LIKELIHOOD), other(hidden, LAST, LIKELIHOOD))
        state.pop("score.weight")
        with pytest.raises(RuntimeError, match=r"score\.weight"):
            other.load_state_dict(state)


class TestBuildHead:
    def test_unknown_head_lists_the_valid_ones(self) -> None:
        with pytest.raises(UserError, match=r"'liner'.*linear, mlp"):
            build_head("liner", H)

    def test_unknown_argument_lists_the_valid_ones(self) -> None:
        with pytest.raises(UserError, match=r"'witdh'.*valid arguments: width"):
            build_head("mlp", H, arguments={"witdh": 3})
        with pytest.raises(UserError, match=r"'width'.*valid arguments: none"):
            build_head("linear", H, arguments={"width": 3})

    def test_arguments_by_head(self) -> None:
        assert head_arguments("linear") == ()
        assert head_arguments("mlp") == ("width",)


class TestTokenValueHead:
    def test_starts_at_zero_and_can_learn(self) -> None:
        head = TokenValueHead(H)
        values = head(hidden_states())
        assert values.shape == (3, 4)
        assert values.tolist() == [[0.0] * 4] * 3
        values.sum().backward()
        assert all(p.grad is not None and bool(p.grad.any()) for p in head.parameters())

    def test_started_from_a_reward_head_it_scores_each_token_alike(self) -> None:
        hidden, reward_head = hidden_states(), LinearHead(H)
        values = TokenValueHead.from_reward_head(reward_head)(hidden)
        for t in range(4):
            expected = reward_head(hidden, torch.full((3,), t))
            torch.testing.assert_close(values[:, t], expected)

    def test_training_it_leaves_the_reward_head_alone(self) -> None:
        reward_head = LinearHead(H)
        before = reward_head.score.weight.detach().clone()
        head = TokenValueHead.from_reward_head(reward_head)
        head(hidden_states()).sum().backward()
        torch.optim.SGD(head.parameters(), lr=1.0).step()
        assert torch.equal(reward_head.score.weight, before)
        assert reward_head.score.weight.grad is None

    def test_another_kind_of_head_is_refused(self) -> None:
        with pytest.raises(UserError, match="MlpHead"):
            TokenValueHead.from_reward_head(build_head("mlp", H))

    def test_float32_inside_autocast(self) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert TokenValueHead(H)(hidden_states().bfloat16()).dtype == torch.float32


class TestLikelihoodHead:
    def test_likelihood_counts_only_once_its_weights_are_learned(self) -> None:
        head = build_head("likelihood", H)
        hidden = hidden_states()
        before = head(hidden, LAST, LIKELIHOOD)
        assert torch.equal(before, head(hidden, LAST, 2 * LIKELIHOOD))
        with torch.no_grad():
            head.likelihood.weight.copy_(torch.tensor([[0.01, 0.1]]))
        # 0.01 * 100 * mean + 0.1 * 20 * least
        expected = before + torch.tensor([-0.5 - 4.0, -1.0 - 6.0, -0.1 - 0.4])
        torch.testing.assert_close(head(hidden, LAST, LIKELIHOOD), expected)

    def test_without_log_probabilities_it_refuses(self) -> None:
        with pytest.raises(ValueError, match="log-probabilities"):
            build_head("likelihood", H)(hidden_states(), LAST)
