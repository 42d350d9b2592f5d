"""What the page says in words: who compared what, whether that is more than chance, and who judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from html_outline import outline
from report_example import example_parting, example_report

from alignment.report import headline_and_summary, number_formats
from alignment.report.first_paragraph import first_paragraph, judges, what_parted
from alignment.report.run_report_schema import RunReport, validate_report
from alignment.report.write_report import breakdowns, write_report

pytestmark = pytest.mark.usefixtures("blank_plots")


def figure(value: float, low: float, high: float) -> dict[str, Any]:
    return {"value": value, "ci95": [low, high], "n": 640}


def off_the_toy(*models: str) -> dict[str, Any]:
    """A report without a judge, of a run with these reward models."""
    report = example_report(policies=("sft", "ppo"), judged=False)
    for key in ("reward_helpfulness", "reward_safety"):
        blocks = [report["policies"]["ppo"], report["policies"]["sft"]]
        blocks += [part for block in blocks for name in ("by_kind", "by_group") for part in block[name].values()]
        for block in [*blocks, report["policies"]["ppo"]["less_sft"]]:
            if key.removeprefix("reward_") not in models:
                block[key] = None
    report["policies"]["sft"]["reward_helpfulness"] = figure(-0.4, -0.5, -0.3)
    report["policies"]["ppo"]["reward_helpfulness"] = figure(1.37, 1.26, 1.48)
    report["policies"]["ppo"]["less_sft"]["reward_helpfulness"] = figure(1.77, 1.62, 1.92)
    judge = "reward models" if len(models) > 1 else f"{models[0]} reward model"
    rate = {"win": 0.9, "tie": 0.0, "loss": 0.1, "win_rate": 0.9, "ci95": [0.86, 0.93]}
    report["win_rates"] = [{**report["win_rates"][0], **rate, "judge": judge}]
    report["reward_models"] = {name: report["reward_models"][name] for name in models}
    report["score_histograms"] = {name: report["score_histograms"][name] for name in models}
    return report


def plain(text: str) -> str:
    return text.replace(number_formats.SPACE, " ").replace("\N{MINUS SIGN}", "-")


def checked(report: dict[str, Any]) -> RunReport:
    return validate_report(report)


def shown(report: dict[str, Any], folder: Path) -> str:
    page = write_report(report, folder).read_text(encoding="utf-8")
    return plain(" ".join(" ".join(outline(page).data).split()))


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.66, 0.71, ": more than chance"), (0.3, 0.45, ": more than chance"), (0.45, 0.52, ": no more than chance")],
)
def test_a_win_rate_is_believed_where_its_interval_leaves_out_one_half(low: float, high: float, verdict: str) -> None:
    report = example_report(policies=("sft", "ppo"))
    middle = (low + high) / 2
    report["win_rates"][0].update(win=middle, tie=0.0, loss=1 - middle, win_rate=middle, ci95=[low, high], n=1000)
    text = plain(first_paragraph(checked(report)))
    assert "SFT (fine-tuned on demonstrations) and PPO (" in text
    assert "each answered the same 320 held-out prompts, 320 answers a policy (1 round of training, seed 0)" in text
    assert "The gold judge of the toy world, which takes no part in training, judged the answers." in text
    assert f"in {100 * middle:.0f} % of 1,000 pairs with SFT's (95 % interval" in text and verdict in text


def test_without_a_judge_the_paragraph_says_what_a_score_is_worth() -> None:
    text = plain(first_paragraph(checked(off_the_toy("helpfulness"))))
    assert "Nobody judged these answers" in text and "only people can say" in text
    assert "By the helpfulness reward model, PPO's answer is the better one in 90 % of 320 pairs" in text
    assert "PPO less SFT: helpfulness reward +1.77 (+1.62 to +1.92)." in text


@pytest.mark.parametrize("models", [("helpfulness",), ("helpfulness", "safety")])
def test_off_the_toy_everything_shows_what_was_measured(models: tuple[str, ...], tmp_path: Path) -> None:
    report = off_the_toy(*models)
    found = checked(report)
    headline = plain(headline_and_summary.headline(found))
    by = "the reward models" if len(models) > 1 else "the helpfulness reward model"
    assert headline.startswith(f"PPO against SFT: win rate 90 % (86 % to 93.0 %) by {by}; ")
    assert "; helpfulness reward +1.77 (+1.62 to +1.92)" in headline
    assert ("safety reward" in headline) is (len(models) > 1)
    # The tiles: scores before and after, with the interval of both the score and the difference.
    tiles = {tile.label: [plain(word) for word in tile[1:]] for tile in headline_and_summary.tiles(found)}
    assert tiles["Helpfulness reward"] == ["-0.40", "1.37", "1.26 to 1.48", "+1.77 (+1.62 to +1.92)"]
    assert f"Win rate against SFT by {by}" in tiles
    # The terminal: no column of which nothing was measured, and the scores in a table of their own.
    columns = headline_and_summary.summary_columns(found)
    assert columns == ["policy", f"win rate vs SFT by {by}", "KL to SFT (nats)", "length (tokens)", "stop rate"]
    rows = headline_and_summary.score_rows(found)
    assert [row[:2] for row in rows] == [[policy, model] for policy in ("SFT", "PPO") for model in models]
    assert [plain(word) for word in rows[len(models)][2:]] == ["1.37 (1.26 to 1.48)", "+1.77 (+1.62 to +1.92)"]
    # The page: a dash stands only where something was not measured.
    assert number_formats.NONE not in "".join(str(row) for _, parts in breakdowns(found) for row in parts)
    text = shown(report, tmp_path)
    assert f"{number_formats.NONE} {number_formats.NONE}" not in text
    assert "1.37 1.26 to 1.48" in text and "Violations" not in text


def test_a_part_lists_only_what_was_measured_of_it() -> None:
    parts = {name: rows for _, found in breakdowns(checked(example_report())) for name, _, rows in found}
    assert [heading for heading, _, _ in parts["safety"]][:1] == ["Violations"]
    assert [heading for heading, _, _ in parts["borderline"]][:2] == ["Helpfulness", "False refusals"]


@pytest.mark.parametrize(
    ("reward", "judge", "over"),
    [(0.3, -0.3, True), (0.05, -0.3, False), (0.3, -0.05, False), (0.3, 0.3, False)],
)
def test_over_optimisation_is_said_only_where_reward_and_judge_part(
    reward: float, judge: float, over: bool, tmp_path: Path
) -> None:
    report = example_report(policies=("sft", "ppo"))
    report["curves"]["parting"] = example_parting(reward=reward, judge=judge)
    said = plain(what_parted(checked(report)))
    assert said.startswith("Over-optimisation: from update 20") is over
    assert ("do not part by more than chance" in said) is not over
    assert f"{reward:+.2f} ({reward - 0.1:+.2f} to" in said
    text = shown(report, tmp_path)
    assert said in text and ("ver-optimisation" in text) is over


def test_each_judge_has_a_plot_of_its_own(tmp_path: Path) -> None:
    report = example_report(policies=("sft", "ppo"))
    found = judges(checked(report))
    assert list(found) == ["gold judge of the toy world", "reward models"]
    assert all({rate.judge for rate in rates} == {name} for name, rates in found.items())
    page = write_report(report, tmp_path).read_text(encoding="utf-8")
    for name in found:
        assert page.count(f"for each pair of policies, by {name}") == 1


def test_an_older_report_still_renders(tmp_path: Path) -> None:
    """Without any of the keys that came later."""
    report = example_report()
    for key in ("recipe", "data", "paid_by", "links", "memory_gib"):
        del report[key]
    del report["curves"]["parting"]
    for block in report["policies"].values():
        block.pop("less_sft", None)
    for point in report["curves"]["ppo"]:
        for key in [key for key in point if key.endswith("_ci95")]:
            del point[key]
    text = shown(report, tmp_path)
    assert "Recipe and data" not in text and "More or less than SFT" not in text and "None" not in text


def test_recipe_data_links_and_memory_stand_there(tmp_path: Path) -> None:
    report = example_report()
    report["gpu_memory_gib"] = {"ppo": 3.25}
    text = shown(report, tmp_path)
    assert "configs/toy.yaml, SHA-256 abababababababab" in text and "ppo.updates=60" in text
    assert "158 demonstrations 2 malformed data/toy/demonstrations.jsonl 2c4770233c751d03" in text
    assert "round-1/eval/answers.jsonl : every answer" in text
    assert "python -m stages.reward --evaluate-only" in text
    assert "2 min 44 s 1.7 3.2" in text, "time, memory and the GPU's of PPO"


OTHERS = {"helpfulness": ["owner/<b>model</b>", "models/second"], "safety": []}


def test_the_page_names_the_reward_models_that_paid(tmp_path: Path) -> None:
    report = example_report()
    report["paid_by"] |= {"ppo": OTHERS}
    text = shown(report, tmp_path)
    assert "PPO, paid by helpfulness: owner/<b>model</b>, models/second; safety: none" in text
    report["paid_by"] = None
    assert "paid by not known" in shown(report, tmp_path), "of an earlier version"
    assert "paid by" not in shown(example_report(policies=("base", "sft")) | {"paid_by": {}}, tmp_path)


@pytest.mark.parametrize("judged", [True, False])
def test_reward_models_that_paid_nobody_are_not_said_to_have_been_pleased(judged: bool, tmp_path: Path) -> None:
    """The run's own reward models score the answers, and others paid both policies, or one of them."""
    report = example_report(judged=judged) if judged else off_the_toy("helpfulness", "safety")
    own = shown(report, tmp_path)
    assert ("policies were trained to please" in own) and "did not pay" not in own
    report["paid_by"] = dict.fromkeys(report["paid_by"], OTHERS)
    others = shown(report, tmp_path)
    assert "trained to please" not in others and "Training raises such scores" not in others
    assert "The reward models of this run did not pay the policies; others did" in others
    report["paid_by"]["ppo"] = {**OTHERS, "safety": ["round-1/reward/safety"]}
    assert "trained to please" in shown(report, tmp_path)
