"""What reward models are trained on: mixtures, no pair that prefers the unsafe answer, the control arm's labels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from stage_fixtures import reduced_recipe

from alignment.data.jsonl_and_raw_rows import write_jsonl
from alignment.data.records import GRADES, SAFETY_LABELS, Comparison, Dimension, Message, SafetyLabel
from alignment.errors import UserError
from alignment.run.run_folder import RunFolder
from alignment.workflow.reward_data import RewardData, reward_data, shuffle_labels, without_unsafe_preferred

BINS = tuple(SAFETY_LABELS)[:3]


def comparisons(count: int) -> list[Comparison]:
    return [
        Comparison(
            id=str(number),
            prompt=(Message(role="user", content=f"question {number}"),),
            chosen=(Message(role="assistant", content=f"good {number}"),),
            rejected=(Message(role="assistant", content=f"bad {number}"),),
            dimension="safety",
            conversation_id=str(number),
            grade=GRADES[number % 4],
            safety=SafetyLabel(bin=BINS[number % 3]),
        )
        for number in range(count)
    ]


class TestUnsafeAnswerPreferred:
    def test_is_left_out_of_training_and_counted(self) -> None:
        labels = [*SAFETY_LABELS, None]
        made = [
            item.model_copy(update={"safety": SafetyLabel(bin=name) if name else None})
            for item, name in zip(comparisons(5), labels, strict=True)
        ]
        data = without_unsafe_preferred(RewardData(made, made, {"too long": 2}, []))
        assert [item.safety.bin if item.safety else None for item in data.train] == [
            "preferred_safe_other_unsafe",
            "both_safe",
            "both_unsafe",
            None,
        ]
        assert data.heldout == made
        assert data.left_out == {"too long": 2, "unsafe answer preferred": 1}

    def test_nothing_is_counted_where_there_is_none(self) -> None:
        data = RewardData(comparisons(3), [], {}, [])
        assert without_unsafe_preferred(data) == data


class TestShuffledLabels:
    def test_answers_and_label_counts_stay(self) -> None:
        before = comparisons(1200)
        after = shuffle_labels(before, seed=1)
        assert [item.prompt for item in after] == [item.prompt for item in before]
        for one, other in zip(before, after, strict=True):
            assert {one.chosen_text, one.rejected_text} == {other.chosen_text, other.rejected_text}
        labels = [[(item.grade, item.safety.bin) for item in part if item.safety] for part in (before, after)]
        assert Counter(labels[0]) == Counter(labels[1])

    def test_preferences_are_a_coin_toss_and_grades_are_dealt_anew(self) -> None:
        before = comparisons(1200)
        after = shuffle_labels(before, seed=1)
        pairs = list(zip(before, after, strict=True))
        swapped = sum(one.chosen != other.chosen for one, other in pairs)
        same_grade = sum(one.grade == other.grade for one, other in pairs)
        # Binomial with chances 1/2 and 1/4: four standard deviations.
        assert abs(swapped - 600) < 70
        assert abs(same_grade - 300) < 60

    def test_the_seed_decides(self) -> None:
        before = comparisons(50)
        assert shuffle_labels(before, seed=1) == shuffle_labels(before, seed=1) != shuffle_labels(before, seed=2)


def about(dimension: Dimension, count: int, *, name: str) -> list[Comparison]:
    return [
        Comparison(
            id=f"{name} {number}",
            prompt=(Message(role="user", content=f"{name} asks {number}"),),
            chosen=(Message(role="assistant", content="yes"),),
            rejected=(Message(role="assistant", content="no"),),
            dimension=dimension,
            conversation_id=f"{name} {number}",
        )
        for number in range(count)
    ]


class TestMixture:
    """Of 200 own comparisons about 180 are to train on (a tenth of the conversations is held out)."""

    @pytest.fixture
    def files(self, tmp_path: Path) -> dict[str, Path]:
        made: dict[str, Path] = {}
        for name, dimension, count in (
            ("helpful", "helpfulness", 200),
            ("harmless", "safety", 400),
            ("open", "safety", 40),
            ("few", "safety", 5),
        ):
            made[name] = tmp_path / f"{name}.jsonl"
            write_jsonl(made[name], about(dimension, count, name=name))  # type: ignore[arg-type]
        return made

    def load(self, tmp_path: Path, *settings: str) -> dict[Dimension, RewardData]:
        names = {"prompts": "x", "heldout_prompts": "x", "pretraining": "x", "demonstrations": "x"}
        recipe = reduced_recipe(names, tmp_path / "run", "data.heldout_prompts=null", *settings)
        return reward_data(recipe, RunFolder(recipe.run_dir), 1)

    def both(self, files: dict[str, Path]) -> tuple[str, str]:
        return f"reward.helpfulness.data={files['helpful']}", f"reward.safety.data={files['harmless']}"

    @pytest.mark.parametrize(("share", "ratio"), [(0.5, 1.0), (0.1, 1 / 9), (0.25, 1 / 3)])
    def test_all_of_its_own_and_a_share_of_the_other_models(
        self, share: float, ratio: float, files: dict[str, Path], tmp_path: Path
    ) -> None:
        mix = f"reward.helpfulness.mix=[{{dimension: safety, share: {share}}}]"
        data = self.load(tmp_path, *self.both(files), mix)["helpfulness"]
        counts = Counter(item.dimension for item in data.train)
        assert counts["helpfulness"] + len(data.heldout) == 200
        assert 150 < counts["helpfulness"] < 200
        assert counts["safety"] == round(ratio * counts["helpfulness"])
        assert {item.dimension for item in data.heldout} == {"helpfulness"}
        assert data.notes == []
        assert set(data.inputs) == {files["helpful"], files["harmless"]}

    def test_nothing_held_out_by_the_other_model_is_mixed_in(self, files: dict[str, Path], tmp_path: Path) -> None:
        data = self.load(tmp_path, *self.both(files), "reward.helpfulness.mix=[{dimension: safety, share: 0.6}]")
        mixed = {item.id for item in data["helpfulness"].train if item.dimension == "safety"}
        assert len(mixed) > 200
        assert not mixed & {item.id for item in data["safety"].heldout}

    def test_sources_are_pooled_and_drawn_from_alike(self, files: dict[str, Path], tmp_path: Path) -> None:
        source = f"{{data: [{files['harmless']}, {files['open']}], dimension: safety, share: 0.5}}"
        data = self.load(
            tmp_path, self.both(files)[0], "reward.models=[helpfulness]", f"reward.helpfulness.mix=[{source}]"
        )["helpfulness"]
        drawn = Counter(item.id.split()[0] for item in data.train)
        assert drawn["harmless"] + drawn["open"] == drawn["helpful"]
        # A draw of 180 from 360 and 36: about 16 of the small source, four standard deviations.
        assert 4 < drawn["open"] < 29

    def test_what_a_mixture_lacks_is_said(self, files: dict[str, Path], tmp_path: Path) -> None:
        source = f"{{data: {files['few']}, dimension: safety, share: 0.5}}"
        data = self.load(
            tmp_path, self.both(files)[0], "reward.models=[helpfulness]", f"reward.helpfulness.mix=[{source}]"
        )["helpfulness"]
        counts = Counter(item.dimension for item in data.train)
        assert counts["safety"] <= 5
        assert len(data.notes) == 1 and f"took the {counts['safety']} there are" in data.notes[0]

    def test_what_is_left_out_of_a_mixture_is_said_and_counted(self, files: dict[str, Path], tmp_path: Path) -> None:
        with files["few"].open("a") as rows:
            rows.write("no row\n")
            files["open"].open("a").write("neither\n" * 2)
        sources = ", ".join(f"{{data: {files[name]}, dimension: safety, share: 0.01}}" for name in ("few", "open"))
        settings = (self.both(files)[0], "reward.models=[helpfulness]", f"reward.helpfulness.mix=[{sources}]")
        data = self.load(tmp_path, *settings, "data.on_error=skip")["helpfulness"]
        assert data.left_out["of what is mixed in, malformed"] == 3
        assert [f"{files[name]}: " in note for name, note in zip(("few", "open"), data.notes, strict=True)] == [
            True,
            True,
        ]
        assert "1 malformed" in data.notes[0] and "2 malformed" in data.notes[1]

    def test_what_was_looked_for_and_not_found_stays_on_record(self, files: dict[str, Path], tmp_path: Path) -> None:
        source = f"{{data: {files['few']}, dimension: safety, share: 0.5}}"
        settings = (self.both(files)[0], "reward.models=[helpfulness]", f"reward.helpfulness.mix=[{source}]")
        data = self.load(tmp_path, *settings, "reward.overlap=majority")["helpfulness"]
        found = [data.left_out[f"{mixed}pairs with even votes"] for mixed in ("", "of what is mixed in, ")]
        assert found == [0, 0]

    def test_shares_that_leave_no_room_are_refused(self, files: dict[str, Path], tmp_path: Path) -> None:
        with pytest.raises(UserError, match="add up to less than 1"):
            self.load(
                tmp_path, "reward.helpfulness.mix=[{dimension: safety, share: 0.5}, {dimension: safety, share: 0.5}]"
            )

    def test_no_pair_that_prefers_the_unsafe_answer_is_trained_on(self, files: dict[str, Path], tmp_path: Path) -> None:
        """Every fourth pair does: none is left to train on in either model's mixture, and all stay to measure with."""
        bins = list(SAFETY_LABELS)
        labelled = [
            item.model_copy(update={"safety": SafetyLabel(bin=bins[number % 4])})
            for number, item in enumerate(about("safety", 400, name="harmless"))
        ]
        write_jsonl(files["harmless"], labelled)
        mix = "reward.helpfulness.mix=[{dimension: safety, share: 0.5}]"
        data = self.load(tmp_path, *self.both(files), mix, "reward.safety.mix=[]")
        wrong = "preferred_unsafe_other_safe"
        for item in data.values():
            kept = Counter(one.safety.bin for one in item.train if one.safety)
            assert kept[wrong] == 0 < min(kept[name] for name in bins if name != wrong)
            assert item.left_out["unsafe answer preferred"] > 20
        measured = [one.safety.bin for one in data["safety"].heldout if one.safety]
        assert measured.count(wrong) > 0
        left_out = data["safety"].left_out["unsafe answer preferred"]
        assert left_out + measured.count(wrong) == 100, "each is left out of the training or held out"

    def test_copies_are_refused(self, files: dict[str, Path], tmp_path: Path) -> None:
        rows = about("helpfulness", 20, name="helpful")
        write_jsonl(files["helpful"], [*rows, rows[3].model_copy(update={"id": "again"})])
        with pytest.raises(UserError, match="again is a copy of helpful 3"):
            self.load(tmp_path, *self.both(files))
        data = self.load(tmp_path, *self.both(files), "data.on_error=skip")["helpfulness"]
        assert data.left_out["copies"] == 1

    def test_the_draw_depends_on_the_seed_alone(self, files: dict[str, Path], tmp_path: Path) -> None:
        mix = "reward.helpfulness.mix=[{dimension: safety, share: 0.3}]"
        one, same, other = (
            [item.id for item in self.load(tmp_path, *self.both(files), mix, f"seed={seed}")["helpfulness"].train]
            for seed in (0, 0, 1)
        )
        assert one == same != other
