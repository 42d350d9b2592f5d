"""Measuring a policy; the guard's verdict on made-up snapshots, and what the watch does about it and about the KL."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from stage_fixtures import reduced_data, reduced_recipe
from tiny import add_role, encoded_prompts

from alignment.errors import UserError
from alignment.machine.device_and_processes import Processes
from alignment.models.backbone import Backbone, Role
from alignment.models.sampling.batch_sampling import answer_prompts
from alignment.rl.heldout_answers import HeldoutScores, best_of, measure_policy, overoptimized, parting
from alignment.settings.ppo_sections import PPOSection
from alignment.settings.sections import SamplingSection
from stages.ppo.training_watch import TrainingWatch, check_can_watch


class TestMeasuring:
    SAMPLING = SamplingSection(temperature=0.8, max_new_tokens=6, batch_size_prompts=3)

    def test_each_answer_stands_by_its_prompt_with_its_kl_to_sft(self, backbone: Backbone) -> None:
        add_role(backbone, "policy", seed=2)
        policy, sft = Role(backbone, "policy"), Role(backbone, None)
        prompts = encoded_prompts(backbone, 5) + encoded_prompts(backbone, 2)
        torch.manual_seed(0)
        rows = measure_policy(policy, prompts, self.SAMPLING, sft=sft, reward_models={})
        assert [row.prompt_id for row in rows] == ["p0", "p1", "p2", "p3", "p4", "p0", "p1"]
        torch.manual_seed(0)
        answers = answer_prompts(policy, prompts, self.SAMPLING)
        totals = [len(item.token_ids) + n for item, n in zip(prompts, answers.lengths.tolist(), strict=True)]
        assert totals != sorted(totals), "the scoring goes by length, which is another order"
        assert [row.stopped for row in rows] == answers.stopped.tolist()
        for row, prompt, answer_ids in zip(rows, prompts, answers.row_ids(), strict=True):
            assert row.n_tokens == len(answer_ids)
            own, reference = (logprob(role, prompt.token_ids, answer_ids, 0.8) for role in (policy, sft))
            assert row.kl_nats == pytest.approx(own - reference, abs=1e-4)

    def test_sft_has_no_kl_to_itself(self, backbone: Backbone) -> None:
        sft = Role(backbone, None)
        rows = measure_policy(sft, encoded_prompts(backbone, 3), self.SAMPLING, sft=sft, reward_models={})
        assert [row.kl_nats for row in rows] == [0.0, 0.0, 0.0]


@torch.no_grad()
def logprob(role: Role, prompt: list[int], answer: list[int], temperature: float) -> float:
    """Log-probability of an answer by the definition, one unpadded sequence."""
    with role.backbone.role(role.adapter):
        logits = role.backbone.base(input_ids=torch.tensor([prompt + answer])).logits[0].double() / temperature
    logprobs = logits.log_softmax(-1)
    return sum(logprobs[len(prompt) + place - 1, token].item() for place, token in enumerate(answer))


def snapshot(update: int, reward: float, guard: float | None, *, spread: float = 0.1) -> HeldoutScores:
    """Four prompts whose scores lie evenly around a mean."""
    around = (-1.5 * spread, -0.5 * spread, 0.5 * spread, 1.5 * spread)
    guards = None if guard is None else tuple(guard + delta for delta in around)
    return HeldoutScores(update, tuple(reward + delta for delta in around), guards)


class TestBest:
    def test_is_the_guards_choice_else_the_rewards(self) -> None:
        with_guard = [snapshot(0, 0, 0), snapshot(10, 1, 2), snapshot(20, 3, 1)]
        assert best_of(with_guard) is with_guard[1]
        without = [snapshot(0, 0, None), snapshot(10, 1, None), snapshot(20, 3, None)]
        assert best_of(without) is without[2]

    def test_earliest_of_equal_ones_and_none_of_none(self) -> None:
        equal = [snapshot(0, 1, 1), snapshot(10, 1, 1)]
        assert best_of(equal) is equal[0]
        assert best_of([]) is None


class TestVerdict:
    def test_guard_falls_while_reward_rises(self) -> None:
        said = overoptimized([snapshot(0, 0, 0), snapshot(10, 1, 2), snapshot(20, 3, 1)])
        assert said is not None
        assert "from update 10 to 20 the reward rose by 2.00 (" in said and "while the guard fell by 1.00 (" in said

    @pytest.mark.parametrize(
        "snapshots",
        [
            pytest.param([snapshot(0, 0, 0), snapshot(10, 1, 2), snapshot(20, 3, 2.5)], id="both rise"),
            pytest.param([snapshot(0, 0, 0), snapshot(10, 1, 2), snapshot(20, 0.5, 1)], id="both fall"),
            pytest.param([snapshot(0, 0, None), snapshot(10, 1, None)], id="no guard"),
            pytest.param([snapshot(0, 0, 0)], id="one snapshot"),
            pytest.param([], id="none"),
        ],
    )
    def test_nothing_else_does(self, snapshots: list[HeldoutScores]) -> None:
        assert overoptimized(snapshots) is None

    def test_the_intervals_are_students_over_prompts(self) -> None:
        """Changes 0, 1, 2, 3: mean 1.5, deviation 1.291; t(0.975, 3) is 3.1824. The guard's -1, -2, -1, -2: 0.5774."""
        before = HeldoutScores(0, (0.0,) * 4, (5.0,) * 4)
        found = parting([before, HeldoutScores(10, (0.0, 1.0, 2.0, 3.0), (4.0, 3.0, 4.0, 3.0))])
        assert found is not None
        assert (found.best, found.last, found.reward["value"], found.guard["value"]) == (0, 10, 1.5, -1.5)
        assert found.reward["ci95"] == pytest.approx([1.5 - 2.0543, 1.5 + 2.0543], abs=1e-3)
        assert found.guard["ci95"] == pytest.approx([-1.5 - 0.9187, -1.5 + 0.9187], abs=1e-3)
        assert found.guard["n"] == 4

    def test_a_reward_that_rises_within_noise_does_not(self) -> None:
        """The guard falls clearly; the reward's rise has the interval -0.55 to 3.55, then 0.58 to 2.42."""
        before, guards = HeldoutScores(0, (0.0,) * 4, (5.0,) * 4), (4.0, 3.0, 4.0, 3.0)
        assert overoptimized([before, HeldoutScores(10, (0.0, 1.0, 2.0, 3.0), guards)]) is None
        said = overoptimized([before, HeldoutScores(10, (1.0, 2.0, 1.0, 2.0), guards)])
        assert said is not None
        assert "rose by 1.50 (95 % interval 0.58 to 2.42) while the guard fell by 1.50 (0.58 to 2.42)" in said

    def test_more_snapshots_are_more_chances_of_a_false_alarm(self) -> None:
        """Three pairs of snapshots: t(1 - 0.05 / 6, 3) is 4.857, and half an interval 4.857 * 0.2887 = 1.402."""
        between = HeldoutScores(5, (0.0,) * 4, (1.0,) * 4)
        first, last = HeldoutScores(0, (0.0,) * 4, (5.0,) * 4), HeldoutScores(10, (1.0, 2.0, 1.0, 2.0), (4.0, 3.0) * 2)
        found = parting([first, between, last])
        assert found is not None
        assert found.guard["ci95"] == pytest.approx([-1.5 - 1.402, -1.5 + 1.402], abs=1e-3)

    def test_one_prompt_tells_nothing(self) -> None:
        assert overoptimized([HeldoutScores(0, (0.0,), (2.0,)), HeldoutScores(10, (5.0,), (1.0,))]) is None

    def test_noise_alone_is_never_called_so(self) -> None:
        """Neither reward nor guard moves: 400 runs of 8 snapshots."""
        chance = random.Random(1)
        for _ in range(400):
            snapshots = [
                HeldoutScores(update, *(tuple(chance.gauss(0, 1) for _ in range(32)) for _ in range(2)))
                for update in range(8)
            ]
            assert overoptimized(snapshots) is None

    def test_a_fall_within_noise_does_not(self) -> None:
        """Differences -0.4, 0.6, -0.4, 0.6: mean 0.1, standard error 0.289."""
        before = HeldoutScores(0, (0.0,) * 4, (1.0, 2.0, 1.0, 2.0))
        after = HeldoutScores(10, (1.0,) * 4, (1.4, 1.4, 1.4, 1.4))
        assert overoptimized([before, after]) is None
        # The same mean without the noise is significant.
        clear = HeldoutScores(10, (1.0,) * 4, (0.9, 1.9, 0.901, 1.9))
        assert overoptimized([before, clear]) is not None

    def test_the_more_pairs_there_are_the_clearer_a_fall_has_to_be(self) -> None:
        """Falls of 1, 1, 3, 3: 3.46 standard errors. At 3 degrees of freedom one pair takes 3.18, three 4.86."""
        first, best = (HeldoutScores(update, (0.0,) * 4, (height,) * 4) for update, height in ((0, 1.0), (10, 5.0)))
        last = HeldoutScores(20, (1.0,) * 4, (4.0, 4.0, 2.0, 2.0))
        assert overoptimized([best, last]) is not None
        assert overoptimized([first, best, last]) is None

    def test_the_best_of_many_noisy_snapshots_is_no_alarm(self) -> None:
        """A guard that stays where it is, 64 prompts, 15 snapshots: alarms about as rare as said, not one in six."""
        chance = random.Random(0)
        alarms = 0
        for _ in range(400):
            snapshots = [
                HeldoutScores(update, (float(update),) * 64, tuple(chance.gauss(0, 1) for _ in range(64)))
                for update in range(15)
            ]
            alarms += overoptimized(snapshots) is not None
        assert alarms <= 0.025 * 400


class FakeSnapshots:
    prompts: tuple[str, ...] = ("a", "b")
    selected_by = "a file"

    def __init__(self, planned: dict[int, HeldoutScores]) -> None:
        self.planned, self.taken = planned, []

    def take(self, update: int) -> bool:
        if update not in self.planned:
            return False
        self.taken.append(self.planned[update])
        best = best_of(self.taken)
        return best is not None and best.update == update

    def scores(self) -> list[HeldoutScores]:
        return list(self.taken)


@pytest.fixture
def watch_of(tmp_path: Any) -> Any:
    """Gives a watch over planned snapshots, with what it said and which policies it saved."""

    def make(planned: dict[int, HeldoutScores], *overrides: str) -> tuple[TrainingWatch, list[str]]:
        said: list[str] = []
        recipe = reduced_recipe(reduced_data(tmp_path), tmp_path / "run", *overrides)

        def save(folder: Any) -> None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "adapter.txt").write_text(f"saved after {len(snapshots.taken)} snapshots")

        snapshots: Any = FakeSnapshots(planned)
        trainer: Any = SimpleNamespace(processes=Processes(), save_policy=save)
        return TrainingWatch(recipe, tmp_path / "ppo", trainer, snapshots, say=said.append), said

    return make


@pytest.mark.parametrize(
    ("changes", "n_prompts", "guarded", "said"),
    [
        ({"keep": "best"}, 0, False, r"ppo\.keep=best needs snapshots"),
        ({"keep": "best", "snapshot_every_updates": 0}, 9, True, r"ppo\.keep=best needs snapshots"),
        ({"on_overoptimization": "stop"}, 9, False, r"needs a guard \(reward\.guard_share"),
        ({"on_overoptimization": "stop"}, 0, True, "needs a guard"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(
    changes: dict[str, Any], n_prompts: int, guarded: bool, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        check_can_watch(PPOSection(**changes), n_prompts=n_prompts, guarded=guarded)
    check_can_watch(PPOSection(keep="best", on_overoptimization="stop"), n_prompts=9, guarded=True)


PLANNED = {0: snapshot(0, 0, 0), 10: snapshot(10, 1, 2), 20: snapshot(20, 3, 1)}


class TestWatch:
    def test_only_the_best_policy_is_kept_on_the_way(self, watch_of: Any) -> None:
        later = {**PLANNED, 30: snapshot(30, 4, 5)}
        watch, _ = watch_of(later, "ppo.keep=best")
        for update in (0, 10, 20):
            watch.look(update, {})
        assert [watch.best_folder(update).exists() for update in (0, 10, 20)] == [True, True, False]
        watch.forget_others()
        assert [watch.best_folder(update).exists() for update in (0, 10)] == [False, True]
        watch.look(30, {})
        watch.forget_others()
        assert [watch.best_folder(update).exists() for update in (10, 30)] == [False, True]

    def test_says_it_and_goes_on(self, watch_of: Any) -> None:
        watch, said = watch_of(PLANNED)
        for update in (0, 10, 15, 20):
            watch.look(update, {})
        assert len(said) == 1
        assert said[0].startswith("update 20: over-optimisation")
        assert not watch.reasons
        assert watch.save_policy() == {
            "policy": "the last update",
            "stopped_early": None,
            "said": said,
            "selection": {"prompts": 2, "from": "a file"},
        }

    def test_stops_and_keeps_the_best(self, watch_of: Any) -> None:
        watch, _ = watch_of(PLANNED, "ppo.on_overoptimization=stop")
        for update in (0, 10, 20):
            watch.look(update, {})
        assert len(watch.reasons) == 1
        found = watch.save_policy()
        assert found["policy"] == "the best snapshot, update 10"
        assert (watch.folder / "adapter.txt").read_text() == "saved after 2 snapshots"
        assert watch.best_folder(10).exists(), "kept until the stage is finished: it may be killed right now"

    def test_keeps_the_best_if_asked_to(self, watch_of: Any) -> None:
        watch, _ = watch_of(PLANNED, "ppo.keep=best")
        for update in (0, 10, 20):
            watch.look(update, {})
        found = watch.save_policy()
        assert (found["policy"], found["stopped_early"]) == ("the best snapshot, update 10", None)

    def test_the_kl_budget(self, watch_of: Any) -> None:
        watch, said = watch_of({}, "ppo.kl_budget_nats=3")
        watch.look(1, {"objective/kl": 2.9})
        assert not watch.reasons
        watch.look(2, {"objective/kl": 3.0})
        assert watch.reasons == ["KL of 3.00 nats has reached ppo.kl_budget_nats=3"]
        assert "update 2: KL of 3.00 nats" in "".join(said)
        assert watch.save_policy()["policy"] == "the last update"

    def test_reasons_survive_a_stop(self, watch_of: Any) -> None:
        watch, _ = watch_of({}, "ppo.kl_budget_nats=3")
        watch.look(2, {"objective/kl": 3.5})
        again, _ = watch_of({}, "ppo.kl_budget_nats=3")
        again.load_state_dict(watch.state_dict())
        assert (again.reasons, again.said) == (watch.reasons, watch.said)

    def test_a_stop_does_not_make_it_forget_to_roll_back(self, watch_of: Any) -> None:
        watch, _ = watch_of(PLANNED, "ppo.on_overoptimization=stop")
        for update in (0, 10, 20):
            watch.look(update, {})
        state, watch.rolls_back = watch.state_dict(), False
        watch.load_state_dict(state)
        assert watch.save_policy()["policy"] == "the best snapshot, update 10"

    def test_findings_are_said_once(self, watch_of: Any) -> None:
        watch, said = watch_of({})
        for update in range(1, 4):
            watch.look(update, {"policy/first_ratio_mean": 1.5})
        assert len(said) == 1
        assert "ratio" in said[0]
