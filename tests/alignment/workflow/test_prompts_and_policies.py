"""The prompts of PPO: endless batches, each pass whole and in a new order."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
from tiny import encoded_prompts, tiny_prompts

from alignment.errors import UserError
from alignment.models.backbone import Backbone
from alignment.workflow.prompts_and_policies import prompt_batches


class TestPromptBatches:
    @pytest.mark.parametrize(("n_prompts", "size"), [(10, 4), (4, 10), (6, 6), (5, 1)])
    def test_each_pass_covers_every_prompt_once(self, n_prompts: int, size: int) -> None:
        batches = list(islice(prompt_batches(tiny_prompts(n_prompts), size, seed=0), 3 * n_prompts))
        assert {len(batch) for batch in batches} == {size}
        drawn = [prompt.id for batch in batches for prompt in batch]
        passes = [drawn[start : start + n_prompts] for start in range(0, len(drawn), n_prompts)]
        whole = [ids for ids in passes if len(ids) == n_prompts]
        assert len(whole) >= 3
        assert all(Counter(ids) == Counter(f"p{row}" for row in range(n_prompts)) for ids in whole)
        assert len({tuple(ids) for ids in whole}) > 1, "each pass in a new order"

    def test_the_seed_decides_the_order(self) -> None:
        first, again, other = (
            [prompt.id for prompt in next(prompt_batches(tiny_prompts(9), 9, seed=seed))] for seed in (1, 1, 2)
        )
        assert first == again != other

    def test_encoded_or_not_the_batches_are_the_same(self, backbone: Backbone) -> None:
        plain = islice(prompt_batches(tiny_prompts(10), 4, seed=0, safety_share=0.5), 6)
        encoded = islice(prompt_batches(encoded_prompts(backbone, 10), 4, seed=0, safety_share=0.5), 6)
        assert [[item.prompt for item in batch] for batch in encoded] == list(plain)

    def test_no_prompt_is_refused(self) -> None:
        with pytest.raises(UserError, match="no prompt"):
            prompt_batches([], 4, seed=0)

    @pytest.mark.parametrize(("share", "wanted"), [(0.0, 0), (0.5, 4), (0.3, 2), (1.0, 8)])
    def test_a_share_of_safety_prompts_holds_in_every_batch(self, share: float, wanted: int) -> None:
        prompts = tiny_prompts(10)
        tagged = {prompt.id for prompt in prompts if prompt.dimension == "safety"}
        assert 0 < len(tagged) < 8
        batches = list(islice(prompt_batches(prompts, 8, seed=0, safety_share=share), 20))
        assert {sum(prompt.id in tagged for prompt in batch) for batch in batches} == {wanted}
        for part in (tagged, {prompt.id for prompt in prompts} - tagged):
            drawn = Counter(prompt.id for batch in batches for prompt in batch if prompt.id in part)
            assert not drawn or max(drawn.values()) - min(drawn.values()) <= 1, "each part takes its own passes"
            assert not drawn or drawn.keys() == part

    def test_a_share_of_what_is_not_there_is_refused(self) -> None:
        harmless = [prompt.model_copy(update={"dimension": "helpfulness"}) for prompt in tiny_prompts(5)]
        with pytest.raises(UserError, match=r"safety_share=0\.5: 0 of 5 prompts"):
            prompt_batches(harmless, 4, seed=0, safety_share=0.5)
