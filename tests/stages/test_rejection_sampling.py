"""Fine-tuning on winners: exactly what was sampled is learned; and the pool of all winners so far."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny import TEXTS

from alignment.data.jsonl_and_raw_rows import write_jsonl
from alignment.data.records import Message, Prompt
from alignment.models.backbone import Backbone
from alignment.rl.rejection import Winner, encode_winner
from alignment.run.run_folder import RunFolder
from stages.ppo.rejection_sampling import _earlier_winners


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
