"""The benchmarks: that they run and report what they should, and the arithmetic of their ratios.

Measurements run in this process here, which is faster than starting one for each.
"""

from __future__ import annotations

import importlib
import io
import json
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import child_process
import pytest
import torch
from tiny import tiny_prompts

from alignment.data.dialogue_encoder import DialogueEncoder

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
PEER = ROOT / ".venv" / "bench-trl"


def output_of(script: str, options: Sequence[str]) -> list[str]:
    with redirect_stdout(io.StringIO()) as output:
        importlib.import_module(script).main(options)
    return output.getvalue().splitlines()


def run_here(script: str, options: Sequence[str], **unused: Any) -> dict[str, Any]:
    return json.loads(output_of(Path(script).stem, options)[-1])


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(importlib.import_module("ppo_rows"), "run_script", run_here)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def natural(tiny_folder: Any, tmp_path: Path) -> list[str]:
    """Options that name a tiny model, whose answers end by themselves, and prompts for it."""
    lines = [json.dumps(prompt.model_dump(mode="json", exclude_none=True)) + "\n" for prompt in tiny_prompts(12)]
    (tmp_path / "prompts.jsonl").write_text("".join(lines), encoding="utf-8")
    return [f"--model={tiny_folder('llama')}", f"--prompts={tmp_path / 'prompts.jsonl'}"]


@pytest.mark.integration
def test_our_side_of_every_row(natural: list[str]) -> None:
    lines = output_of("ppo_speed", ["--quick", "--only=ours", "--threads=1", *natural])
    found = json.loads(lines[-1])
    assert [found[f"{name}_ratio"] for name in ("natural", "fixed", "memory")] == [None] * 3
    assert {"repeats", "machine"} <= found.keys()
    contenders = {name: list(row["figures"]) for name, row in found["rows"].items()}
    assert contenders == {
        "natural": ["Tandem, fastest", "Tandem, float32"],
        "fixed": ["Tandem, fastest", "Tandem, float32", "Tandem, value as adapter"],
        "memory": ["Tandem, all roles as adapters"],
    }
    for row in found["rows"].values():
        for (figures,) in row["figures"].values():
            assert figures["episodes_per_s"] > 0
            assert figures["peak_rss_gib"] > 0
            assert len(figures["seconds_per_update"]) == 1
            assert figures["versions"]["torch"] == torch.__version__
            assert set(figures["seconds_per_step"]) == {"sample", "score", "update"}
    assert found["rows"]["fixed"]["figures"]["Tandem, float32"][0]["dtype"] == "float32"
    assert found["rows"]["fixed"]["figures"]["Tandem, value as adapter"][0]["value"] == "adapter"
    for name in ("natural", "fixed", "memory"):
        assert any(line.startswith(f"{name}: 8 episodes") for line in lines)
    # Only answers of the natural row may be shorter than the longest.
    for name in ("fixed", "memory"):
        for (figures,) in found["rows"][name]["figures"].values():
            assert figures["answer_tokens_mean"] == figures["answer_tokens_max"] == 8
    assert found["rows"]["natural"]["figures"]["Tandem, float32"][0]["answer_tokens_mean"] < 8


@pytest.mark.integration
def test_the_gpu_benchmark_on_tiny_models() -> None:
    found = json.loads(output_of("ppo_gpu", ["--tiny", "--threads=1"])[-1])
    assert (found["fixed_ratio"], found["memory_ratio"]) == (None, None)
    nf4 = found["nf4"]
    assert nf4["value"] == "adapter"
    assert nf4["answer_tokens_mean"] == 8
    # Two blocks of 4 x 64 x 64 in attention and 3 x 64 x 128 in the MLP.
    assert nf4["nf4_weights"] == 2 * (4 * 64 * 64 + 3 * 64 * 128)


@pytest.mark.integration
def test_matrices_of_the_nf4_model_are_in_four_bits_and_close_to_what_they_were() -> None:
    nf4 = importlib.import_module("ppo_nf4")
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 128, bias=False, dtype=torch.bfloat16)
    made = nf4.nf4(layer)
    assert made.weight.dtype == torch.uint8
    assert made.weight.numel() == 64 * 128 // 2
    inputs = torch.randn(3, 64, dtype=torch.bfloat16)
    difference = (made(inputs) - layer(inputs)).float().norm() / layer(inputs).float().norm()
    assert difference < 0.15


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_gpu_benchmark_says_that_there_is_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module("ppo_gpu").main([])
    assert stopped.value.code == 2
    assert "no NVIDIA GPU" in capsys.readouterr().err


def test_a_missing_model_is_an_error_that_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"python -m stages\.sft"):
        importlib.import_module("ppo_speed").main(["--quick", "--only=ours", f"--model={tmp_path}"])


@pytest.mark.parametrize(
    ("options", "said"), [([], "make bench-ppo"), (["--only=ours", "--rows=fixed,fxied"], "fxied")]
)
def test_mistakes_on_the_command_line(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module("ppo_speed").main([f"--peer={tmp_path}", *options])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_warm_up_is_not_timed() -> None:
    workload = importlib.import_module("ppo_workload")
    work = workload.Workload(episodes=6, warm_up=1, updates=2)
    found = workload.figures(work, [0.0, 10.0, 12.0, 16.0], [1, 2, 6])
    assert found["seconds_per_update"] == [2, 4]
    assert found["episodes_per_s"] == 12 / 6
    assert (found["answer_tokens_mean"], found["answer_tokens_max"]) == (3, 6)


def test_a_workload_survives_the_command_line() -> None:
    import argparse

    workload = importlib.import_module("ppo_workload")
    work = workload.Workload(model="a b", episodes=7, fixed_length=True)
    parser = argparse.ArgumentParser()
    workload.Workload.add_arguments(parser)
    assert workload.Workload.from_arguments(parser.parse_args(work.options)) == work


def row_with(figures: dict[str, list[dict[str, float]]]) -> Any:
    rows = importlib.import_module("ppo_rows")
    row = rows.Row("a row", importlib.import_module("ppo_workload").Workload(), [])
    row.figures = figures
    return row


def test_speed_is_compared_repeat_by_repeat_with_the_fastest_peer() -> None:
    speeds = {"ours": [10, 30, 24], "first": [5, 10, 12], "second": [6, 6, 100], "third": [1, 1, 1]}
    row = row_with({name: [{"episodes_per_s": item} for item in each] for name, each in speeds.items()})
    # Medians of the peers are 10, 6 and 1; the repeats' ratios to the first are 2, 3 and 2.
    assert row.speed_ratio("ours", ["first", "second", "third"]) == 2
    assert row.speed_ratio("ours", ["absent"]) is None


def test_memory_is_compared_with_the_peer_that_needs_least() -> None:
    peaks = {"ours": [1, 2], "first": [4, 5], "second": [8, 8]}
    row = row_with({name: [{"peak": item} for item in each] for name, each in peaks.items()})
    assert row.memory_ratio("ours", ["first", "second"], key="peak") == 0.4
    assert row.memory_ratio("ours", ["absent"], key="peak") is None


def test_unequal_work_is_refused() -> None:
    rows, workload = importlib.import_module("ppo_rows"), importlib.import_module("ppo_workload")
    contender, work = rows.Contender("a side", "side.py"), workload.Workload(new_tokens=48, fixed_length=True)
    rows.check_lengths(work, contender, {"answer_tokens_mean": 48})
    with pytest.raises(SystemExit, match=r"a side: answers of 47\.9 tokens, not 48"):
        rows.check_lengths(work, contender, {"answer_tokens_mean": 47.9})


@pytest.mark.integration
def test_a_random_model_can_neither_stop_nor_draw_padding() -> None:
    random_llama = importlib.import_module("random_llama")
    encoder = DialogueEncoder(random_llama.word_tokenizer(64))
    assert encoder.stop_ids == {64}
    assert encoder.pad_id == 65
    prompts = random_llama.random_prompts(5, tokens=12, vocabulary=64)
    rows = [encoder.encode_prompt(prompt.messages) for prompt in prompts]
    assert {len(row) for row in rows} == {12}
    assert max(token for row in rows for token in row) < 64
    assert len(set(map(tuple, rows))) == 5


def hh_pairs(count: int) -> list[dict[str, str]]:
    """Transcripts of one to three turns and of very different lengths."""
    rng = random.Random(0)

    def words(most: int) -> str:
        return " ".join(rng.choice(("tea", "rain", "lake", "why", "never")) for _ in range(rng.randint(1, most)))

    pairs = []
    for number in range(count):
        turns = [f"\n\nHuman: {words(20)}?\n\nAssistant: {words(9)}." for _ in range(number % 3)]
        opening = "".join(turns) + f"\n\nHuman: {words(20)} {number}?\n\nAssistant:"
        pairs.append({"chosen": f"{opening} Yes, {words(9)}.", "rejected": f"{opening} No, {words(20)}."})
    return pairs


@pytest.mark.integration
def test_both_sides_of_reward_training_lose_the_same(tmp_path: Path) -> None:
    data = tmp_path / "hh.jsonl"
    data.write_text("".join(json.dumps(pair) + "\n" for pair in hh_pairs(40)), encoding="utf-8")
    options = ["--quick", f"--data={data}", "--batch=4", "--steps=3", "--rows=float32", "--threads=1"]
    options += ["--learning-rate=1e-2"]  # a wrong gradient shows in the losses that follow
    found = json.loads(output_of("reward_speed", options)[-1])
    assert found["pairs_ratio"] > 0
    assert found["grouped_ratio"] > 0
    assert found["max_loss_difference"] < 1e-4
    assert {"parameters", "repeats", "machine", "versions"} <= found.keys()
    sides = found["rows"]["float32"]["figures"]
    assert list(sides) == ["TRL", "Tandem", "TRL, grouped"]
    plain, ours, grouped = (figures for (figures,) in sides.values())
    for figures in (plain, ours, grouped):
        assert figures["pairs_per_s"] > 0
        assert figures["pairs"] == 12
        assert len(figures["losses"]) == 3
        assert figures["dialogue_tokens_per_pair"] == plain["dialogue_tokens_per_pair"]
    # Tandem passes prompts once; padding comes on top of the dialogues in the others, least of all in groups.
    assert ours["tokens_per_pair"] < grouped["dialogue_tokens_per_pair"]
    assert grouped["dialogue_tokens_per_pair"] < grouped["tokens_per_pair"] < plain["tokens_per_pair"]


@pytest.mark.parametrize(
    ("options", "said"), [(["--data=nowhere.jsonl"], "nowhere.jsonl"), ([f"--data={__file__}", "--rows=fp8"], "fp8")]
)
def test_mistakes_on_the_command_line_of_the_reward_benchmark(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module("reward_speed").main(options)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_losses_and_speeds_are_compared_repeat_by_repeat() -> None:
    speed = importlib.import_module("reward_speed")
    row = speed.Row(importlib.import_module("reward_workload").RewardWork())
    first = {"pairs_per_s": 6.0, "losses": [0.5, 0.25, 0.0, 0.0, 0.0, 9.0]}
    second = {"pairs_per_s": 9.0, "losses": [0.5, 0.25, 0.0, 0.0, 0.125, 9.0]}
    peer = {"pairs_per_s": 3.0, "losses": [0.5, 0.25, 0.0, 0.0, 0.0, 0.0]}
    row.figures = {"Tandem": [first, second], "TRL": [peer, peer]}
    assert row.ratio("TRL") == 2.5
    assert row.loss_difference == 0.125  # the sixth step does not count


@pytest.mark.slow
@pytest.mark.skipif(not (PEER / "trl").is_dir(), reason="`make bench-ppo` has not installed the peer")
def test_both_sides_in_processes_of_their_own() -> None:
    command = [sys.executable, str(BENCHMARKS / "ppo_speed.py"), "--quick", "--rows=fixed,memory"]
    done = child_process.run(command, check=True, limit_seconds=1800)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["fixed_ratio"] > 0
    assert found["memory_ratio"] > 0
    versions = {name: figures[0]["versions"]["trl"] for name, figures in found["rows"]["memory"]["figures"].items()}
    assert {version for name, version in versions.items() if name.startswith("TRL")} == {"1.12.0"}
