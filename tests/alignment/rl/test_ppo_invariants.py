"""The thirteen invariants of a right PPO, by number; docs/ppo.md names the trap that each closes.

They hold for an adapter and for full training, in 32, 16 and 4 bits, for padding with the stop token, at a temperature
other than 1, with prompts of mixed lengths (left-padded while sampling). The thirteenth is about these tests: what they
expect comes from hand arithmetic, a closed form or a slow loop, never from the function under test.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ppo_example import EPISODES, TEMPERATURE, gradients, one_batch, settings, trainer_on
from tiny import add_reward_model, base_parameters, encoded_prompts, load_tiny, save_tiny_model, state_of, unchanged
from torch import Tensor

from alignment.data.encoded_dialogues import EncodedAnswer
from alignment.errors import UserError
from alignment.models.backbone import Backbone, Role
from alignment.models.scorers.reward_model import RewardModel
from alignment.models.scorers.scorer_protocol import RewardJudgment
from alignment.rl.ppo import PPO
from alignment.rl.ppo_math import (
    Advantages,
    clipped_policy_loss,
    clipped_value_loss,
    generalized_advantages,
    missing_stop_penalty,
    shape_scores,
    token_rewards,
    whiten,
)
from alignment.rl.ppo_metrics import rollout_metrics
from alignment.rl.rollout import Rollout, response_pass


@dataclass(frozen=True)
class Case:
    """One way of training, and how exactly its numbers have to agree."""

    train: str
    model: dict[str, Any]
    family: str
    tolerance: float


CASES = {
    "lora": Case("lora", {}, "llama", 1e-5),
    "lora, pad is eos": Case("lora", {}, "llama, pad is eos", 1e-5),
    "lora, sampling copy": Case("lora", {"sampling_copy": True}, "qwen2", 1e-5),
    "lora, bfloat16": Case("lora", {"dtype": "bfloat16"}, "llama", 1e-5),
    "lora, nf4": Case("lora", {"quantization": "nf4"}, "wide llama", 1e-4),
    "full": Case("full", {}, "llama", 1e-5),
    "full, pad is eos": Case("full", {}, "llama, pad is eos", 1e-5),
    "full, bfloat16": Case("full", {"dtype": "bfloat16"}, "llama", 1e-5),
}


@pytest.fixture(scope="module")
def wide_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough for blocks of 64 weights in 4 bits."""
    return save_tiny_model(tmp_path_factory.mktemp("wide"), hidden=32)


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
def trainer(case: Case, tiny_folder: Callable[[str], Path], wide_llama: Path) -> PPO:
    folder = wide_llama if case.family == "wide llama" else tiny_folder(case.family)
    return trainer_on(load_tiny(folder, **case.model), train=case.train)


def valid(values: Tensor, rollout: Rollout) -> Tensor:
    return values[rollout.episodes.response_mask]


class TestInvariant01RatioOneAndKlZero:
    def test_at_the_first_minibatch(self, trainer: PPO, case: Case) -> None:
        rollout, advantages = one_batch(trainer)
        assert len(set(rollout.episodes.prompt_lengths.tolist())) > 2, "left padding matters"
        metrics = rollout_metrics(trainer.gate(rollout), advantages)
        # A merged adapter is rounded to 16 bits, the reference is not merged: equal but for that rounding.
        rounding = 0.1 if case.train == "full" and case.model.get("dtype") == "bfloat16" else case.tolerance
        assert metrics["objective/kl"] == pytest.approx(0, abs=rounding)
        losses = trainer.update(rollout, advantages)
        assert losses["policy/first_ratio_mean"] == pytest.approx(1, abs=case.tolerance)
        assert losses["policy/clip_fraction"] == 0
        again = trainer.score(rollout.episodes)
        assert valid(again.old_logprobs - rollout.old_logprobs, rollout).abs().max() > 1e-3, "the policy has moved"

    def test_the_same_noise_draws_the_same_answers(self, trainer: PPO) -> None:
        """That what is drawn is what is scored, left padding included: tests/alignment/models/test_sampling.py."""
        rollout, _ = one_batch(trainer)
        again = trainer.sample(encoded_prompts(trainer.backbone, EPISODES), 1)
        assert again.token_ids.tolist() == rollout.episodes.token_ids.tolist()
        other = trainer.sample(encoded_prompts(trainer.backbone, EPISODES), 2)
        assert other.dialogues() != again.dialogues()


class TestInvariant02MasksFromLengths:
    def test_a_pad_token_inside_an_answer_counts(self, tiny_folder: Callable[[str], Path]) -> None:
        trainer = trainer_on(load_tiny(tiny_folder("llama, pad is eos")))
        rollout, _ = one_batch(trainer)
        pad = trainer.backbone.encoder.pad_id
        assert pad in trainer.backbone.encoder.stop_ids
        stopped = rollout.episodes.stopped.nonzero()[:, 0].tolist()
        assert stopped, "some answers end with the pad token"
        for row in stopped:
            last = int(rollout.episodes.response_lengths[row]) - 1
            assert rollout.episodes.response_ids(row)[last] == pad
            assert rollout.episodes.response_mask[row, last]
            assert rollout.old_logprobs[row, last] != 0

    def test_padding_is_what_lies_beyond_the_length(self, trainer: PPO) -> None:
        rollout, _ = one_batch(trainer)
        for row, length in enumerate(rollout.episodes.response_lengths.tolist()):
            assert rollout.episodes.response_mask[row].tolist() == [
                place < length for place in range(rollout.episodes.response_mask.shape[1])
            ]


class TestInvariant03ScoreOnTheLastToken:
    def test_and_nowhere_else(self, trainer: PPO) -> None:
        rollout, _ = one_batch(trainer)
        gated = trainer.gate(rollout)
        rewards = trainer.token_rewards(gated)
        penalties = -0.05 * (rollout.old_logprobs - rollout.ref_logprobs)
        for row, length in enumerate(rollout.episodes.response_lengths.tolist()):
            score = rewards[row] - penalties[row]
            assert score[length - 1].item() == pytest.approx(gated.scores[row].item(), abs=1e-5)
            assert not (score[: length - 1].abs() > 1e-5).any()
            assert not rewards[row, length:].any()

    def test_one_token_earlier_gives_other_advantages(self) -> None:
        mask = torch.ones(1, 3, dtype=torch.bool)
        values = torch.tensor([[0.5, 0.2, 0.1]])
        right = generalized_advantages(torch.tensor([[0.0, 0.0, 1.0]]), values, mask, gamma=1.0, lam=0.5).advantages
        # delta = [-0.3, -0.1, 0.9]; A2 = 0.9, A1 = -0.1 + 0.45, A0 = -0.3 + 0.175
        assert right.tolist()[0] == pytest.approx([-0.125, 0.35, 0.9])
        moved = generalized_advantages(torch.tensor([[0.0, 1.0, 0.0]]), values, mask, gamma=1.0, lam=0.5).advantages
        # delta = [-0.3, 0.9, -0.1]; A2 = -0.1, A1 = 0.9 - 0.05, A0 = -0.3 + 0.425
        assert moved.tolist()[0] == pytest.approx([0.125, 0.85, -0.1])


class TestInvariant04MissingStop:
    def test_any_stop_id_of_the_answer_counts_and_the_prompt_does_not(self, trainer: PPO) -> None:
        rollout, _ = one_batch(trainer)
        stop_ids = trainer.backbone.encoder.stop_ids
        for row in range(EPISODES):
            ids = rollout.episodes.response_ids(row)
            assert bool(rollout.episodes.stopped[row]) == (ids[-1] in stop_ids)
            assert not stop_ids.intersection(ids[:-1])
        assert 0 < int(rollout.episodes.stopped.sum()) < EPISODES, "both kinds occur"

    def test_is_punished_after_whitening(self) -> None:
        scores, stopped = torch.tensor([1.0, 3.0, 5.0]), torch.tensor([True, False, True])
        shaped = shape_scores(scores, stopped, penalty=2.0).tolist()
        spread = math.sqrt(8 / 3)
        assert shaped == pytest.approx([-2 / spread, 0.0 - 2.0, 2 / spread], abs=1e-5)
        before = whiten(missing_stop_penalty(scores, stopped, penalty=2.0)).tolist()
        assert before != pytest.approx(shaped, abs=0.1)


class TestInvariant05AnySplit:
    """Of processes: tests/alignment/machine/test_device_and_processes.py."""

    @pytest.mark.parametrize("train", ["lora", "full"])
    @pytest.mark.parametrize("value", ["adapter", "head", "model"])
    def test_into_micro_batches(self, backbone: Backbone, train: str, value: str) -> None:
        trainer = trainer_on(backbone, train=train, value=value)
        parameters = [*trainer.policy_parameters, *trainer.value_parameters]
        start = state_of(parameters)
        rollout, advantages = one_batch(trainer)
        assert len(set(rollout.episodes.response_lengths.tolist())) > 2, "a mean per micro-batch would differ"
        found = {}
        for size in (12, 3, 1):
            with torch.no_grad():
                for parameter, old in zip(parameters, start, strict=True):
                    parameter.copy_(old)
            trainer.settings = settings(train=train, value=value, micro_batch_size_episodes=size, max_grad_norm=1e9)
            trainer.update(rollout, advantages)
            found[size] = gradients(parameters)
        for size in (3, 1):
            for one, other in zip(found[size], found[12], strict=True):
                torch.testing.assert_close(one, other, atol=5e-6, rtol=1e-3)


class TestInvariant06HeadsSurvive:
    @pytest.mark.parametrize("model", [{}, {"quantization": "nf4"}], ids=["16/32 bits", "nf4"])
    def test_saving_and_loading(self, wide_llama: Path, tmp_path: Path, model: dict[str, Any]) -> None:
        dialogues = [EncodedAnswer([7, 8, 9], [10, 11, 2]), EncodedAnswer([7, 8], [12, 2])]
        saved = add_reward_model(load_tiny(wide_llama, **model), "helpfulness", seed=3, head_name="mlp")
        assert saved.head.inner.bias is not None  # type: ignore[union-attr]
        saved.save(tmp_path, calibration={})
        loaded = RewardModel.load(load_tiny(wide_llama, **model), "helpfulness", tmp_path)
        expected = saved.score(dialogues, batch_size=2).tolist()
        assert loaded.score(dialogues, batch_size=2).tolist() == pytest.approx(expected, abs=1e-6)
        assert expected[0] != pytest.approx(expected[1], abs=1e-3)

    def test_a_fresh_head_is_an_error(self, wide_llama: Path, tmp_path: Path) -> None:
        add_reward_model(load_tiny(wide_llama), "helpfulness").save(tmp_path, calibration={})
        (tmp_path / "head.safetensors").unlink()
        with pytest.raises(UserError, match=r"head\.safetensors is missing"):
            RewardModel.load(load_tiny(wide_llama), "helpfulness", tmp_path)


@pytest.mark.integration
class TestInvariant07Resume:
    def test_state_there_and_back_is_bit_identical(
        self, case: Case, tiny_folder: Callable[[str], Path], wide_llama: Path
    ) -> None:
        """Of whole runs killed anywhere: tests/stages/test_resume.py and tests/stages/test_kill_nine.py."""
        folder = wide_llama if case.family == "wide llama" else tiny_folder(case.family)

        def fresh() -> PPO:
            return trainer_on(load_tiny(folder, **case.model), train=case.train, schedule="linear", updates=9)

        def updates(trainer: PPO, numbers: range) -> list[dict[str, float]]:
            found = []
            for update in numbers:
                rollout = trainer.score(trainer.sample(encoded_prompts(trainer.backbone, EPISODES), update))
                advantages = trainer.advantages(rollout, trainer.token_rewards(trainer.gate(rollout)))
                found.append(trainer.update(rollout, advantages))
            return found

        whole = fresh()
        first = updates(whole, range(1, 3))
        state = whole.state_dict()
        kept = {"weights": state_of(state["weights"]), **{k: v for k, v in state.items() if k != "weights"}}
        kept["optimizer"] = {
            **state["optimizer"],
            "state": {k: {n: t.clone() for n, t in v.items()} for k, v in state["optimizer"]["state"].items()},
        }
        kept["schedule"], kept["generator"] = dict(state["schedule"]), state["generator"].clone()
        rest = updates(whole, range(3, 5))
        resumed = fresh()
        resumed.load_state_dict(kept)
        assert updates(resumed, range(3, 5)) == rest
        assert first != rest
        for one, other in zip(resumed.policy_parameters, whole.policy_parameters, strict=True):
            assert torch.equal(one, other)


class TestInvariant08RolesDoNotTouch:
    def test_reference_and_reward_models_stay_while_the_policy_moves(self, trainer: PPO) -> None:
        rollout, advantages = one_batch(trainer)
        backbone = trainer.backbone
        kept = [p for role in ("reference", "helpfulness", "safety") for p in backbone.adapter_parameters(role)]
        kept += base_parameters(backbone)
        before, policy = state_of(kept), state_of(trainer.policy_parameters)
        trainer.update(rollout, advantages)
        assert unchanged(kept, before)
        assert all(parameter.grad is None for parameter in kept)
        assert not unchanged(trainer.policy_parameters, policy)
        after = trainer.score(rollout.episodes)
        assert torch.equal(after.ref_logprobs, rollout.ref_logprobs)
        assert torch.equal(after.helpfulness, rollout.helpfulness)

    def test_scores_inside_equal_scores_alone(self, trainer: PPO, case: Case) -> None:
        rollout, _ = one_batch(trainer)
        model = trainer.reward_models["helpfulness"]
        alone = [model.score([dialogue], batch_size=1).item() for dialogue in rollout.episodes.dialogues()]
        tolerance = 0.2 if case.model.get("dtype") == "bfloat16" else 1e-4
        assert rollout.helpfulness.tolist() == pytest.approx(alone, abs=tolerance)


class TestInvariant09LoggedKlIsTheExactOne:
    @pytest.mark.integration
    def test_over_many_answers_of_one_token(self, backbone: Backbone) -> None:
        trainer = trainer_on(backbone, learning_rate=3e-3, sampling={"temperature": TEMPERATURE, "max_new_tokens": 1})
        for _ in range(3):
            trainer.update(*one_batch(trainer))
        episodes = trainer.sample(encoded_prompts(backbone, 1) * 4000, 9)
        rollout = trainer.score(episodes)
        ids, lengths = episodes.token_ids[:1], episodes.prompt_lengths[:1]
        with torch.no_grad():
            distributions = []
            for role in ("policy", "reference"):
                with backbone.role(role):
                    hidden = backbone.hidden_states(ids, lengths + 1)[0, lengths[0] - 1]
                    distributions.append((backbone.logits(hidden[None])[0] / TEMPERATURE).double().log_softmax(-1))
        policy, reference = distributions
        exact = (policy.exp() * (policy - reference)).sum().item()
        gated = trainer.gate(rollout)
        metrics = rollout_metrics(gated, trainer.advantages(rollout, trainer.token_rewards(gated)))
        spread = (rollout.old_logprobs - rollout.ref_logprobs).std().item() / math.sqrt(4000)
        assert exact > 0.01, "the two have parted"
        assert metrics["objective/kl"] == pytest.approx(exact, abs=4 * spread)
        assert metrics["objective/kl_k3"] == pytest.approx(exact, abs=4 * spread)


class TestInvariant10ClosedForms:
    """The one-step bandit at the level of the losses: tests/alignment/rl/test_ppo_math_losses.py::TestBandit."""

    BETA = 0.5
    FIRST, SECOND = 6, 5

    def optimum(self, reference: tuple[Tensor, Tensor], rewards: Tensor) -> tuple[Tensor, Tensor]:
        """By dynamic programming: the second token's optimum, then the first one's from its soft value."""
        first, second = reference
        tilted = second + rewards / self.BETA
        value = self.BETA * tilted.logsumexp(1)
        return (first + value / self.BETA).log_softmax(0), tilted.log_softmax(1)

    @pytest.mark.integration
    def test_two_steps_against_dynamic_programming(self) -> None:
        generator = torch.Generator().manual_seed(5)
        rewards = torch.randn(self.FIRST, self.SECOND, generator=generator)
        reference = (
            torch.randn(self.FIRST, generator=generator).log_softmax(0),
            torch.randn(self.FIRST, self.SECOND, generator=generator).log_softmax(1),
        )
        first, second = (part.clone().requires_grad_() for part in reference)
        values = torch.zeros(1 + self.FIRST, requires_grad=True)
        updates, batch = 200, 1024
        optimiser = torch.optim.Adam([first, second, values], lr=0.1)
        mask = torch.ones(batch, 2, dtype=torch.bool)

        def logprobs(a: Tensor, b: Tensor) -> Tensor:
            return torch.stack([first.log_softmax(0)[a], second.log_softmax(1)[a, b]], 1)

        for update in range(updates):
            optimiser.param_groups[0]["lr"] = 0.1 * (1 - update / updates)
            with torch.no_grad():
                a = torch.multinomial(first.softmax(0), batch, replacement=True, generator=generator)
                b = torch.multinomial(second.softmax(1)[a], 1, generator=generator)[:, 0]
                old, old_values = logprobs(a, b), torch.stack([values[0].expand(batch), values[1 + a]], 1)
                ref = torch.stack([reference[0][a], reference[1][a, b]], 1)
            earned = token_rewards(old, ref, rewards[a, b], mask, beta=self.BETA)
            found = generalized_advantages(earned, old_values, mask, gamma=1.0, lam=0.95)
            for rows in torch.arange(batch).split(256):
                policy = clipped_policy_loss(
                    logprobs(a[rows], b[rows]),
                    old[rows],
                    found.advantages[rows],
                    mask[rows],
                    clip_range=0.2,
                    n_tokens=512,
                )
                new_values = torch.stack([values[0].expand(256), values[1 + a[rows]]], 1)
                critic = clipped_value_loss(
                    new_values, old_values[rows], found.returns[rows], mask[rows], clip_range=0.2, n_tokens=512
                )
                optimiser.zero_grad()
                (policy.loss + critic.loss).backward()
                optimiser.step()
        best_first, best_second = self.optimum(reference, rewards)
        learnt_first, learnt_second = first.detach().log_softmax(0), second.detach().log_softmax(1)

        def divergence(p: tuple[Tensor, Tensor], q: tuple[Tensor, Tensor]) -> float:
            joint_p, joint_q = (one[:, None] + two for one, two in (p, q))
            return float((joint_p.exp() * (joint_p - joint_q)).sum())

        optimum = (best_first, best_second)
        assert divergence(reference, optimum) > 1
        assert divergence((learnt_first, learnt_second), optimum) <= 0.01

    @pytest.mark.integration
    @pytest.mark.parametrize("train", ["lora", "full"])
    def test_the_trainer_on_a_bandit_of_32_tokens(self, tmp_path: Path, train: str) -> None:
        """A transformer, sampling, scoring, GAE and the optimiser together: one prompt, one token, known rewards."""
        backbone = load_tiny(save_tiny_model(tmp_path, hidden=64))  # room for 31 directions under the last norm
        allowed = torch.arange(20, 52)
        output = backbone.base.get_output_embeddings().weight
        with torch.no_grad():
            others = torch.ones(len(output), dtype=torch.bool)
            others[allowed] = False
            output[others] = 0.0
            output[others, 0] = -40.0  # unit 0 of the states is the same everywhere
            output[allowed] *= 0.4
        beta = 1.0
        rewards = torch.randn(32, generator=torch.Generator().manual_seed(3))
        table = torch.zeros(len(output)).scatter(0, allowed, rewards)

        class Known:
            folders: list[Path] = []  # noqa: RUF012

            def judge(self, dialogues: list[EncodedAnswer], *, batch_size: int, on_batch: Any = None) -> RewardJudgment:
                return RewardJudgment(table[torch.tensor([dialogue.answer_ids[0] for dialogue in dialogues])], None)

            def score(self, dialogues: list[EncodedAnswer], *, batch_size: int, on_batch: Any = None) -> Tensor:
                return self.judge(dialogues, batch_size=batch_size).scores

        from tiny import LORA

        backbone.add_adapter("policy", LORA.model_copy(update={"r": 16, "alpha": 16}))
        changes = settings(
            batch_size_episodes=256,
            minibatch_size_episodes=64,
            micro_batch_size_episodes=64,
            updates=80,
            train=train,
            value="head",
            whiten_scores=False,
            missing_stop_penalty=0.0,
            schedule="linear",
            kl_beta=beta,
            learning_rate=1e-2 if train == "lora" else 1e-3,
            value_learning_rate=5e-2,
            weight_decay=0.0,
            sampling={"temperature": 1.0, "max_new_tokens": 1, "batch_size_prompts": 256},
        )
        trainer = PPO(backbone, {"helpfulness": Known()}, changes, seed=0)
        prompts = encoded_prompts(backbone, 1) * 256

        def distribution(role: Role) -> Tensor:
            model, prompt = role.backbone, prompts[0].token_ids
            ids, lengths = torch.tensor([[*prompt, 0]]), torch.tensor([len(prompt) + 1])
            with torch.no_grad(), model.role(role.adapter):
                logits = model.logits(model.hidden_states(ids, lengths)[0, len(prompt) - 1][None])[0]
            return logits.double().log_softmax(-1)[allowed].log_softmax(-1)

        reference = distribution(trainer.reference)
        optimum = (reference + rewards / beta).log_softmax(-1)
        for update in range(1, changes.updates + 1):
            rollout = trainer.score(trainer.sample(prompts, update))
            advantages = trainer.advantages(rollout, trainer.token_rewards(trainer.gate(rollout)))
            trainer.update(rollout, advantages)
        learnt = distribution(trainer.policy)
        start = (reference.exp() * (reference - optimum)).sum().item()
        found = (learnt.exp() * (learnt - optimum)).sum().item()
        assert start > 0.1
        assert found <= 0.01


class TestInvariant11Whitening:
    def test_scores_over_the_batch_and_advantages_over_valid_tokens(self, trainer: PPO) -> None:
        rollout, advantages = one_batch(trainer)
        shaped = trainer.gate(replace(rollout, episodes=replace(rollout.episodes, stopped=torch.ones(EPISODES) > 0)))
        for values in (shaped.scores.tolist(), valid(advantages.advantages, rollout).tolist()):
            mean = sum(values) / len(values)
            assert mean == pytest.approx(0, abs=1e-5)
            assert sum((value - mean) ** 2 for value in values) / len(values) == pytest.approx(1, abs=1e-4)
        assert not advantages.advantages[rollout.episodes.response_mask.logical_not()].any()


class TestInvariant12PaddingAndPrompts:
    def test_padding_content_never_changes_a_loss(self, trainer: PPO) -> None:
        rollout, advantages = one_batch(trainer)
        dirty_ids = rollout.episodes.token_ids.clone()
        for row, length in enumerate(rollout.episodes.lengths.tolist()):
            dirty_ids[row, length:] = 17
        junk = torch.where(rollout.episodes.response_mask, 0.0, 1e3)
        dirty = replace(
            rollout,
            episodes=replace(rollout.episodes, token_ids=dirty_ids),
            old_logprobs=rollout.old_logprobs + junk,
            old_values=rollout.old_values + junk,
        )
        rows = torch.arange(EPISODES)
        n_tokens = int(rollout.episodes.response_lengths.sum())
        clean_losses, _ = trainer._losses(rollout, advantages, rows, n_tokens=n_tokens)
        dirty_advantages = Advantages(advantages.advantages + junk, advantages.returns + junk)
        dirty_losses, _ = trainer._losses(dirty, dirty_advantages, rows, n_tokens=n_tokens)
        for key, loss in clean_losses.items():
            assert dirty_losses[key].item() == loss.item()

    def test_the_gradient_is_zero_on_prompt_tokens(self, backbone: Backbone) -> None:
        """Of the logits at each position: those that predict prompt tokens and padding get exactly none."""
        trainer = trainer_on(backbone)
        rollout, advantages = one_batch(trainer)
        episodes = rollout.episodes
        seen: list[Tensor] = []
        plain = backbone.hidden_states

        def watched(ids: Tensor, lengths: Tensor) -> Tensor:
            hidden = plain(ids, lengths)
            hidden.retain_grad()
            seen.append(hidden)
            return hidden

        backbone.hidden_states = watched  # type: ignore[method-assign]
        new = response_pass(
            trainer.policy,
            episodes.token_ids,
            episodes.prompt_lengths,
            episodes.response_lengths,
            temperature=1.0,
        )
        loss = clipped_policy_loss(
            new.logprobs,
            rollout.old_logprobs,
            advantages.advantages,
            episodes.response_mask,
            clip_range=0.2,
            n_tokens=int(episodes.response_lengths.sum()),
        ).loss
        loss.backward()
        gradient = seen[0].grad
        assert gradient is not None
        for row in range(EPISODES):
            start, end = int(episodes.prompt_lengths[row]) - 1, int(episodes.lengths[row]) - 1
            assert not gradient[row, :start].any()
            assert not gradient[row, end:].any()
            assert gradient[row, start:end].any()
