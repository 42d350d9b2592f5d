"""Fine-tuning on winners: exactly what was sampled is learned; and the pool of all winners so far."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from stage_fixtures import write_lines
from tiny import LORA, TEXTS

from alignment.data.jsonl_and_raw_rows import write_jsonl
from alignment.data.records import Message, Prompt
from alignment.errors import UserError
from alignment.machine.device_and_processes import Processes
from alignment.models.backbone import Backbone
from alignment.rl.rejection import Winner, encode_winner
from alignment.run.run_folder import RunFolder
from alignment.settings.read_recipe import load_recipe
from stages.ppo.rejection_sampling import _earlier_winners, encode_demonstrations
from stages.ppo.round_inputs import Round


def winner(answer_ids: list[int], *, stopped: bool) -> Winner:
    turns = (("user", TEXTS[0]), ("assistant", TEXTS[1]), ("user", TEXTS[2]))
    messages = tuple(Message(role=role, content=text) for role, text in turns)  # type: ignore[arg-type]
    return Winner(
        prompt=Prompt(id="p", messages=messages),
        answer="unused",
        answer_ids=answer_ids,
        stopped=stopped,
        round=1,
        score=0.0,
        median_score=0.0,
        candidates=1,
    )


def test_the_sampled_tokens_alone_are_learned(any_backbone: Backbone) -> None:
    stop = any_backbone.encoder.stop_id
    sampled = [20, 21, 22, stop]
    dialogue = encode_winner(winner(sampled, stopped=True), any_backbone)
    learned = torch.tensor(dialogue.input_ids)[torch.tensor(dialogue.loss_mask)].tolist()
    assert learned == sampled, "not the answer given earlier in the prompt"
    assert dialogue.input_ids[-4:] == sampled
    assert sum(not counts for counts in dialogue.loss_mask) == len(dialogue.input_ids) - 4 > 10


def test_an_answer_that_was_cut_off_does_not_learn_to_stop_there(any_backbone: Backbone) -> None:
    dialogue = encode_winner(winner([20, 21, 22], stopped=False), any_backbone)
    assert dialogue.input_ids[-1] == 22
    assert not any(
        counts and token in any_backbone.encoder.stop_ids
        for token, counts in zip(dialogue.input_ids, dialogue.loss_mask, strict=True)
    )


def test_the_pool_holds_every_winner_of_every_round_before(tmp_path: Path) -> None:
    """Three winners of round 1, one of which won again in round 2, and one more; round 3 is being made."""
    first = [winner([20, place], stopped=bool(place % 2)) for place in range(3)]
    second = [first[1], winner([30], stopped=True).model_copy(update={"round": 2})]
    for number, winners in ((1, first), (2, second), (3, [winner([40], stopped=True)])):
        folder = tmp_path / f"round-{number}" / "rejection"
        folder.mkdir(parents=True)
        write_jsonl(folder / "winners.jsonl", winners)
    pools = [_earlier_winners(RunFolder(str(tmp_path)), number) for number in (1, 2, 3)]
    expected = [[], first, [*first, *second]]
    for pool, wanted in zip(pools, expected, strict=True):
        assert [(item.answer_ids, item.stopped, item.round) for item in pool] == [
            (item.answer_ids, item.stopped, item.round) for item in wanted
        ]


def test_demonstrations_that_cannot_be_read_are_said_and_counted(
    backbone: Backbone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = [{"role": role, "content": text} for role, text in zip(("user", "assistant"), TEXTS[:2], strict=True)]
    rows = [{"messages": turns}, {"messages": turns, "label": False}, {"messages": [*turns, *turns * 9]}]
    file = write_lines(tmp_path / "demonstrations.jsonl", rows)
    settings = [f"sft.data={file}", "data.too_long=skip", "data.on_error=skip"]
    encoded, left_out = encode_demonstrations(load_recipe(None, settings), backbone)
    assert (len(encoded), left_out) == (1, {"label is false": 1, "too long": 1})
    said = capsys.readouterr().err
    assert "label is false" in said and "1 too long, left out" in said


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("model.lora.r=8", r"model\.lora\.r=2, now 8"),
        ("model.lora.alpha=9", r"model\.lora\.alpha=4\.?0?, now 9"),
        ("model.lora.target_modules=[q_proj]", r"model\.lora\.target_modules=.*, now \[\"q_proj\"\]"),
    ],
)
def test_ppo_that_goes_on_from_it_cannot_have_another_adapter(
    setting: str, said: str, backbone: Backbone, tmp_path: Path
) -> None:
    folder, lora = RunFolder(tmp_path), ("model.lora.r=2", "model.lora.alpha=4")
    stage = folder.begin("rejection", load_recipe(None, lora), 1)
    backbone.add_adapter("made", LORA)
    backbone.save_adapter("made", stage.folder)
    folder.finish(stage, {}, inputs=[])

    def round_with(*settings: str) -> Round:
        recipe = load_recipe(None, [*lora, f"run_dir={tmp_path}", *settings])
        return Round(recipe, 1, folder, backbone, {}, None, [], [], {}, Processes())

    with pytest.raises(UserError, match=f"goes on training the adapter in .*rejection.*{said}.*overwrite=true"):
        round_with(setting).add_policy("policy")
    round_with("model.lora.dropout=0.3").add_policy("policy")
    assert backbone.adapter_parameters("policy")
