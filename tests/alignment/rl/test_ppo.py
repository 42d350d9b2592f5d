"""The six steps of PPO on tiny models: what each computes, what an update moves, and what it must leave alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ppo_example import EPISODES, TEMPERATURE, gradients, one_batch, settings, trainer_on
from tiny import base_parameters, encoded_prompts, load_tiny, state_of, unchanged
from torch import Tensor, nn

from alignment.data.encoded_dialogues import EncodedAnswer
from alignment.models.backbone import Backbone
from alignment.rl.ppo import PPO
from alignment.rl.ppo_metrics import rollout_metrics
from alignment.rl.rollout import Rollout


def roles_that_stay(trainer: PPO) -> list[nn.Parameter]:
    backbone = trainer.backbone
    adapters = [p for role in ("reference", "helpfulness", "safety") for p in backbone.adapter_parameters(role)]
    heads = [p for model in trainer.reward_models.values() for p in model.head.parameters()]
    return [*adapters, *heads, *base_parameters(backbone)]


class TestStart:
    @pytest.mark.parametrize("fresh", [True, False])
    def test_first_ratio_is_one_and_kl_zero(self, any_backbone: Backbone, fresh: bool) -> None:
        trainer = trainer_on(any_backbone, policy_seed=None if fresh else 0)
        rollout, advantages = one_batch(trainer)
        metrics = rollout_metrics(trainer.gate(rollout), advantages)
        assert metrics["objective/kl"] == pytest.approx(0, abs=1e-5)
        assert metrics["objective/kl_k3"] == pytest.approx(0, abs=1e-6)
        losses = trainer.update(rollout, advantages)
        assert losses["policy/first_ratio_mean"] == pytest.approx(1, abs=1e-5)
        assert losses["policy/approx_kl"] == pytest.approx(0, abs=1e-6)
        assert losses["policy/clip_fraction"] == 0
        after = trainer.score(rollout.episodes)
        moved = (after.old_logprobs - rollout.old_logprobs)[rollout.episodes.response_mask]
        assert moved.abs().max() > 1e-2, "the update changes the policy, so the zeros above mean something"
        assert torch.equal(after.ref_logprobs, rollout.ref_logprobs)

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_the_very_micro_batches_that_were_scored_have_ratio_one_to_the_last_bit(
        self, tiny_folder: Callable[[str], Path], dtype: str
    ) -> None:
        trainer = trainer_on(load_tiny(tiny_folder("llama"), dtype=dtype))
        assert trainer.settings.minibatch_size_episodes == EPISODES, "so that rows are taken in the order of scoring"
        losses = trainer.update(*one_batch(trainer))
        assert losses["policy/first_approx_kl"] == 0
        assert losses["policy/first_ratio_mean"] == pytest.approx(1, abs=1e-7), (
            "the mean of ones is rounded, they are not"
        )

    @pytest.mark.parametrize(("dtype", "rounding"), [("float32", 1e-5), ("bfloat16", 0.02)])
    def test_other_micro_batches_have_ratio_one_but_for_rounding(
        self, tiny_folder: Callable[[str], Path], dtype: str, rounding: float
    ) -> None:
        trainer = trainer_on(load_tiny(tiny_folder("llama"), dtype=dtype))
        rollout, advantages = one_batch(trainer)
        trainer.settings = settings(minibatch_size_episodes=6, micro_batch_size_episodes=3)
        losses = trainer.update(rollout, advantages)
        assert losses["policy/first_ratio_mean"] == pytest.approx(1, abs=rounding)

    def test_later_minibatches_are_off_policy(self, backbone: Backbone) -> None:
        trainer = trainer_on(backbone, minibatch_size_episodes=4)
        losses = trainer.update(*one_batch(trainer))
        assert losses["policy/first_ratio_mean"] == pytest.approx(1, abs=1e-5)
        assert abs(losses["policy/ratio_mean"] - 1) > 1e-4

    def test_under_nf4(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        from tiny import save_tiny_model

        folder = save_tiny_model(tmp_path_factory.mktemp("nf4"), hidden=32)
        trainer = trainer_on(load_tiny(folder, quantization="nf4"))
        rollout, advantages = one_batch(trainer)
        before = state_of(trainer.policy_parameters)
        losses = trainer.update(rollout, advantages)
        assert losses["policy/first_ratio_mean"] == pytest.approx(1, abs=1e-4)
        assert not unchanged(trainer.policy_parameters, before)

    def test_value_adapter_starts_as_the_helpfulness_model(self, backbone: Backbone) -> None:
        trainer = trainer_on(backbone)
        rollout, _ = one_batch(trainer)
        model = trainer.reward_models["helpfulness"]
        for row in range(EPISODES):
            length = int(rollout.episodes.response_lengths[row])
            if length < 2:
                continue
            # The state that predicts the last token is that of the dialogue without it.
            whole = rollout.episodes.dialogues()[row]
            shorter = model.score([EncodedAnswer(whole.prompt_ids, whole.answer_ids[:-1])], batch_size=1).item()
            value = rollout.old_values[row, length - 1].item()
            assert value == pytest.approx(shorter + model.offset, abs=1e-4)

    def test_value_head_alone_starts_at_zero(self, backbone: Backbone) -> None:
        rollout, _ = one_batch(trainer_on(backbone, value="head"))
        assert not rollout.old_values.any()


class TestGate:
    @staticmethod
    def made(trainer: PPO, helpfulness: list[float], safety: list[float], stopped: list[bool]) -> Rollout:
        rollout, _ = one_batch(trainer)
        episodes = replace(
            rollout.episodes,
            stopped=torch.tensor(stopped),
            is_safety=torch.tensor([False] * 11 + [True]),
        )
        return replace(rollout, episodes=episodes, helpfulness=torch.tensor(helpfulness), safety=torch.tensor(safety))

    def test_gate_then_whitening_then_the_penalty(self, backbone: Backbone) -> None:
        trainer = trainer_on(backbone, missing_stop_penalty=2.5)
        # Ten helpful answers at 4, one flagged by the safety model (-8 < logit 0.15), one safety prompt at 6.
        rollout = self.made(trainer, [4.0] * 12, [0.0] * 10 + [-8.0, 6.0], [False] + [True] * 11)
        gated = trainer.gate(rollout)
        raw = [4.0] * 10 + [-8.0, 6.0]
        assert gated.raw_scores.tolist() == raw
        assert gated.routed_to_safety.tolist() == [False] * 10 + [True, True]
        mean = sum(raw) / 12
        std = math.sqrt(sum((value - mean) ** 2 for value in raw) / 12)
        expected = [(value - mean) / std for value in raw]
        expected[0] -= 2.5
        assert gated.scores.tolist() == pytest.approx(expected, abs=1e-5)

    def test_settings_reach_it(self, backbone: Backbone) -> None:
        trainer = trainer_on(backbone, missing_stop_penalty=0.5, whiten_scores=False, safety_threshold=0.9)
        rollout = self.made(trainer, [4.0] * 12, [2.0] * 6 + [2.5] * 6, [True] * 6 + [False] * 6)
        # logit(0.9) = 2.197: the first six go to the safety model, and the safety prompt.
        assert trainer.gate(rollout).scores.tolist() == [2.0] * 6 + [3.5] * 5 + [2.0]

    def test_scores_in_ppo_equal_the_reward_models_alone(self, backbone: Backbone) -> None:
        trainer = trainer_on(backbone)
        rollout, _ = one_batch(trainer)
        for name, scores in (("helpfulness", rollout.helpfulness), ("safety", rollout.safety)):
            alone = [trainer.reward_models[name].score([d], batch_size=1).item() for d in rollout.episodes.dialogues()]
            assert scores.tolist() == pytest.approx(alone, abs=1e-5)


class TestRewardsAndAdvantages:
    def test_by_a_slow_loop(self, backbone: Backbone) -> None:
        trainer = trainer_on(backbone, gamma=0.9, gae_lambda=0.8)
        rollout, _ = one_batch(trainer)
        noise = torch.Generator().manual_seed(4)
        shifted = rollout.ref_logprobs + 0.3 * torch.randn(rollout.ref_logprobs.shape, generator=noise)
        rollout = replace(rollout, ref_logprobs=shifted)
        gated = trainer.gate(rollout)
        advantages = trainer.advantages(rollout, trainer.token_rewards(gated))
        plain: list[list[float]] = []
        for row, length in enumerate(rollout.episodes.response_lengths.tolist()):
            rewards = [-0.05 * (rollout.old_logprobs[row, t] - shifted[row, t]).item() for t in range(length)]
            rewards[-1] += gated.scores[row].item()
            values = [*rollout.old_values[row, :length].tolist(), 0.0]
            row_advantages = [0.0] * (length + 1)
            for t in reversed(range(length)):
                delta = rewards[t] + 0.9 * values[t + 1] - values[t]
                row_advantages[t] = delta + 0.9 * 0.8 * row_advantages[t + 1]
            plain.append(row_advantages[:length])
            returns = [a + v for a, v in zip(row_advantages, values[:length], strict=False)]
            assert advantages.returns[row, :length].tolist() == pytest.approx(returns, abs=1e-4)
        flat = [value for row in plain for value in row]
        mean = sum(flat) / len(flat)
        std = math.sqrt(sum((value - mean) ** 2 for value in flat) / len(flat))
        for row, row_plain in enumerate(plain):
            expected = [(value - mean) / std for value in row_plain]
            assert advantages.advantages[row, : len(expected)].tolist() == pytest.approx(expected, abs=1e-4)
            assert not advantages.advantages[row, len(expected) :].any()

    def test_the_kl_costs_what_the_controller_has_made_of_beta(self, backbone: Backbone) -> None:
        """KL 1.5 nats, target 1: the price rises by a fifth, the most that it may, as 12 episodes are the horizon."""
        trainer = trainer_on(backbone, kl_control="adaptive", kl_target_nats=1.0, kl_horizon_episodes=EPISODES)
        rollout, advantages = one_batch(trainer)
        mask, lengths = rollout.episodes.response_mask, rollout.episodes.response_lengths
        per_token = 1.5 / lengths[:, None] * mask
        dearer = replace(rollout, ref_logprobs=rollout.old_logprobs - per_token)
        for beta in (0.05, 0.05 * 1.2, 0.05 * 1.2 * 1.2):
            gated = trainer.gate(dearer)
            last = [(row, length - 1) for row, length in enumerate(lengths.tolist())]
            rewards = trainer.token_rewards(gated).clone()
            for row, place in last:
                rewards[row, place] -= gated.scores[row]
            torch.testing.assert_close(rewards, -beta * per_token, atol=1e-5, rtol=1e-4)
            assert trainer.update(dearer, advantages)["objective/beta"] == pytest.approx(beta)


class TestMinibatches:
    @staticmethod
    def stepped(trainer: PPO, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
        """The rows of each optimiser step of one update."""
        found: list[list[int]] = []
        plain = PPO._minibatch_step

        def noted(self: PPO, *given: Any, **options: Any) -> dict[str, float]:
            found.append(given[2].tolist())
            return plain(self, *given, **options)

        monkeypatch.setattr(PPO, "_minibatch_step", noted)
        trainer.update(*one_batch(trainer))
        return found

    @pytest.mark.parametrize("epochs", [1, 3])
    def test_each_pass_takes_every_episode_once(
        self, backbone: Backbone, epochs: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps = self.stepped(trainer_on(backbone, epochs=epochs, minibatch_size_episodes=4), monkeypatch)
        per_pass = EPISODES // 4
        assert len(steps) == epochs * per_pass
        for start in range(0, len(steps), per_pass):
            rows = [row for step in steps[start : start + per_pass] for row in step]
            assert sorted(rows) == list(range(EPISODES))

    def test_each_pass_deals_them_out_anew(self, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
        steps = self.stepped(trainer_on(backbone, epochs=3, minibatch_size_episodes=4), monkeypatch)
        passes = [frozenset(frozenset(step) for step in steps[start : start + 3]) for start in (0, 3, 6)]
        in_order = frozenset(frozenset(range(start, start + 4)) for start in (0, 4, 8))
        assert len({*passes, in_order}) == 4, "short answers, which come first, are not all in one step"


class TestValueLoss:
    def test_its_weight_scales_its_gradient_and_not_the_policys(self, backbone: Backbone) -> None:
        trainer = trainer_on(backbone, max_grad_norm=1e9)
        trained = [*trainer.policy_parameters, *trainer.value_parameters]
        start = state_of(trained)
        rollout, advantages = one_batch(trainer)
        found = []
        for weight in (0.1, 0.3):
            with torch.no_grad():
                for parameter, old in zip(trained, start, strict=True):
                    parameter.copy_(old)
            trainer.settings = settings(value_weight=weight, max_grad_norm=1e9)
            trainer.update(rollout, advantages)
            found.append([gradients(trainer.policy_parameters), gradients(trainer.value_parameters)])
        assert sum(g.abs().sum().item() for g in found[0][1]) > 0.01
        for one, other in zip(found[0][0], found[1][0], strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
        for one, other in zip(found[0][1], found[1][1], strict=True):
            torch.testing.assert_close(3 * one, other, atol=1e-5, rtol=1e-3)

    @pytest.mark.parametrize("clip_range", [0.05, 0.2, 0.6])
    def test_values_are_kept_near_their_old_selves_by_a_slow_loop(self, backbone: Backbone, clip_range: float) -> None:
        trainer = trainer_on(backbone, value_clip_range=clip_range)
        rollout, advantages = one_batch(trainer)
        mask = rollout.episodes.response_mask
        moved = replace(rollout, old_values=rollout.old_values - 0.4 * mask)  # as if the values had risen by 0.4 since
        loss, clipped = 0.0, 0
        tokens = [(row, t) for row, length in enumerate(rollout.episodes.response_lengths) for t in range(int(length))]
        for row, t in tokens:
            value, target = rollout.old_values[row, t].item(), advantages.returns[row, t].item()
            near = value - 0.4 + min(0.4, clip_range)
            loss += 0.5 * max((value - target) ** 2, (near - target) ** 2)
            clipped += (near - target) ** 2 > (value - target) ** 2 + 1e-6
        losses = trainer.update(moved, advantages)
        assert losses["value/loss"] == pytest.approx(loss / len(tokens), rel=1e-4)
        if clip_range < 0.4:
            assert clipped, "the clip makes a difference to some"
            assert losses["value/clip_fraction"] == pytest.approx(clipped / len(tokens), abs=1e-4)


@pytest.mark.parametrize("value", ["adapter", "head"])
class TestUpdate:
    def test_everything_trainable_moves_and_nothing_else(self, any_backbone: Backbone, value: str) -> None:
        trainer = trainer_on(any_backbone, value=value)
        kept = roles_that_stay(trainer)
        before_kept = state_of(kept)
        trained = [*trainer.policy_parameters, *trainer.value_parameters]
        before = state_of(trained)
        for _ in range(2):  # a zero value head gives its trunk no gradient at the first step
            trainer.update(*one_batch(trainer))
        still = [i for i, (p, old) in enumerate(zip(trained, before, strict=True)) if torch.equal(p, old)]
        assert not still
        assert unchanged(kept, before_kept)
        n_adapter = len(trainer.policy_parameters)
        assert len(trainer.value_parameters) == 2 + (n_adapter if value == "adapter" else 0)

    @pytest.mark.parametrize(("dtype", "share"), [("float32", 1e-4), ("bfloat16", 0.02)])
    def test_any_split_into_micro_batches_gives_the_same_gradient(
        self,
        tiny_folder: Callable[[str], Path],
        value: str,
        dtype: str,
        share: float,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Within a share of the gradient's largest entry: rows of other widths are rounded otherwise in bfloat16."""
        trainer = trainer_on(load_tiny(tiny_folder("llama"), dtype=dtype), value=value)
        parameters = trainer.optimizer.weights.masters
        start = state_of(parameters)
        rollout, advantages = one_batch(trainer)
        assert len(set(rollout.episodes.response_lengths.tolist())) > 2, "a mean per micro-batch would differ"
        found: dict[int, tuple[list[Tensor], dict[str, float]]] = {}
        monkeypatch.setattr(trainer.optimizer.weights, "forget_taken", lambda: None)  # for them to be looked at
        for size in (12, 4, 3, 1):
            trainer.optimizer.weights.load(start)
            trainer.settings = settings(value=value, micro_batch_size_episodes=size, max_grad_norm=1e9)
            losses = trainer.update(rollout, advantages)
            found[size] = gradients(parameters), losses
        whole, whole_losses = found[12]
        assert sum(g.abs().sum().item() for g in whole) > 0.1
        for size in (4, 3, 1):
            parts, losses = found[size]
            for one, other in zip(parts, whole, strict=True):
                assert one.dtype == torch.float32, "gradients are summed in float32"
                torch.testing.assert_close(one, other, atol=share * max(other.abs().max().item(), 0.02), rtol=share)
            assert losses == pytest.approx(whole_losses, abs=share, rel=share)

    def test_warming_up_the_value_leaves_the_policy_exactly_as_it_is(self, backbone: Backbone, value: str) -> None:
        trainer = trainer_on(backbone, value=value, weight_decay=0.5)
        policy, values = state_of(trainer.policy_parameters), state_of(trainer.value_parameters)
        for _ in range(2):
            trainer.update(*one_batch(trainer), train_policy=False)
        assert unchanged(trainer.policy_parameters, policy)
        assert not unchanged(trainer.value_parameters, values)

    def test_gradients_are_clipped_for_each_of_the_two(self, backbone: Backbone, value: str) -> None:
        trainer = trainer_on(backbone, value=value, max_grad_norm=1e-3, value_weight=10.0)
        trainer.update(*one_batch(trainer))
        for parameters in (trainer.policy_parameters, trainer.value_parameters):
            norm = math.sqrt(sum((g**2).sum().item() for g in gradients(parameters)))
            assert norm == pytest.approx(1e-3, rel=1e-2)


class TestSchedule:
    @pytest.mark.parametrize(("schedule", "shares"), [("constant", (1, 1, 1)), ("linear", (1, 2 / 3, 1 / 3))])
    def test_scales_both_rates(self, backbone: Backbone, schedule: str, shares: tuple[float, ...]) -> None:
        trainer = trainer_on(backbone, updates=3, schedule=schedule, learning_rate=1e-2, value_learning_rate=4e-2)
        for share in shares:
            used = [group["lr"] for group in trainer.optimizer.param_groups]
            assert used == pytest.approx([1e-2 * share, 4e-2 * share])
            reported = trainer.update(*one_batch(trainer))["policy/learning_rate"]
            assert reported == pytest.approx(1e-2 * share)


class TestLearning:
    def test_the_policy_gradient_is_that_of_a_separate_model(self, backbone: Backbone, tmp_path: Any) -> None:
        """On policy, the clipped loss has the gradient of ``-mean(A log pi)``."""
        from tiny import separate_model

        trainer = trainer_on(backbone, max_grad_norm=1e9, value_weight=0.0)
        rollout, advantages = one_batch(trainer)
        separate = separate_model(backbone, "policy", tmp_path, trainable=True)
        trainer.update(rollout, advantages)
        total = torch.zeros(())
        for row, dialogue in enumerate(rollout.episodes.dialogues()):
            start = len(dialogue.prompt_ids)
            logits = separate(input_ids=torch.tensor([dialogue.input_ids])).logits[0] / TEMPERATURE
            for place, token in enumerate(dialogue.answer_ids):
                logprob = torch.log_softmax(logits[start + place - 1], -1)[token]
                total = total - advantages.advantages[row, place] * logprob
        (total / int(rollout.episodes.response_lengths.sum())).backward()
        expected = [p.grad for name, p in separate.named_parameters() if "lora_" in name]
        for one, other in zip(gradients(trainer.policy_parameters), expected, strict=True):
            assert other is not None
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)

    @pytest.mark.integration
    def test_the_wanted_token_becomes_likelier(self, backbone: Backbone) -> None:
        """A reward for stopping: the share of stop tokens among first tokens rises."""
        trainer = trainer_on(backbone, learning_rate=2e-2, kl_beta=0.0, minibatch_size_episodes=4)
        prompts = encoded_prompts(backbone, EPISODES)
        torch.manual_seed(0)
        stopped_early: list[float] = []
        for update in range(12):
            rollout = trainer.score(trainer.sample(prompts, update))
            rollout = replace(
                rollout,
                helpfulness=(rollout.episodes.response_lengths == 1).float(),
                safety=torch.zeros(EPISODES),
                episodes=replace(rollout.episodes, is_safety=torch.zeros(EPISODES, dtype=torch.bool)),
            )
            stopped_early.append(rollout.helpfulness.mean().item())
            trainer.update(rollout, trainer.advantages(rollout, trainer.token_rewards(trainer.gate(rollout))))
        assert sum(stopped_early[-3:]) / 3 > sum(stopped_early[:3]) / 3 + 0.2, stopped_early


def test_prompts_are_not_encoded_again_to_sample_from_them(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_on(backbone)
    prompts = encoded_prompts(backbone, EPISODES)

    def refuse(messages: object) -> list[int]:
        raise AssertionError("encoded a second time")

    monkeypatch.setattr(backbone.encoder, "encode_prompt", refuse)
    episodes = trainer.sample(prompts, 1)
    expected = {item.prompt.id: item.token_ids for item in prompts}
    dialogues = episodes.dialogues()
    assert {
        prompt.id: dialogue.prompt_ids for prompt, dialogue in zip(episodes.prompts, dialogues, strict=True)
    } == expected


class TestNonFinite:
    @pytest.mark.parametrize("field", ["advantages", "returns"])
    def test_a_loss_that_is_not_finite_stops_before_the_step(self, backbone: Backbone, field: str) -> None:
        trainer = trainer_on(backbone)
        rollout, advantages = one_batch(trainer)
        parameters = [*trainer.policy_parameters, *trainer.value_parameters]
        before = state_of(parameters)
        broken = getattr(advantages, field).clone()
        broken[0, 0] = math.nan
        with pytest.raises(FloatingPointError, match="not finite"):
            trainer.update(rollout, advantages._replace(**{field: broken}))
        assert unchanged(parameters, before)

    def test_a_gradient_that_is_not_finite_does_too(self, backbone: Backbone) -> None:
        trainer = trainer_on(backbone)
        rollout, advantages = one_batch(trainer)
        parameters = [*trainer.policy_parameters, *trainer.value_parameters]
        before = state_of(parameters)
        trainer.policy_parameters[3].register_hook(lambda gradient: gradient * math.inf)
        with pytest.raises(FloatingPointError, match="not finite"):
            trainer.update(rollout, advantages)
        assert unchanged(parameters, before)


def test_rollout_metrics_by_a_slow_loop(backbone: Backbone) -> None:
    trainer = trainer_on(backbone)
    rollout, advantages = one_batch(trainer)
    rollout = replace(rollout, ref_logprobs=rollout.ref_logprobs - 0.25 * rollout.episodes.response_mask)
    gated = trainer.gate(rollout)
    metrics = rollout_metrics(gated, advantages)
    lengths = rollout.episodes.response_lengths.tolist()
    assert metrics["objective/kl"] == pytest.approx(0.25 * sum(lengths) / EPISODES, rel=1e-4)
    k3 = math.exp(-0.25) - 1 + 0.25
    assert metrics["objective/kl_k3"] == pytest.approx(k3 * sum(lengths) / EPISODES, rel=1e-3)
    entropies = [rollout.entropy[row, t].item() for row, length in enumerate(lengths) for t in range(length)]
    assert metrics["objective/entropy"] == pytest.approx(sum(entropies) / len(entropies), rel=1e-5)
    assert metrics["rollout/length"] == pytest.approx(sum(lengths) / EPISODES)
    stops = [rollout.episodes.response_ids(row)[-1] in backbone.encoder.stop_ids for row in range(EPISODES)]
    assert 0 < sum(stops) < EPISODES
    assert metrics["rollout/stop_rate"] == pytest.approx(sum(stops) / EPISODES)
    raw = gated.raw_scores.tolist()
    assert metrics["objective/score"] == pytest.approx(sum(raw) / EPISODES, abs=1e-5)
