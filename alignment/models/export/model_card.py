"""The ``README.md`` of an exported folder: how to load it, and what to know before one does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignment.data.records import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from alignment.models.scorers.reward_model import RewardModel

CARD = "README.md"
TAG = "tandem-rlhf"

_LOAD_CLASSIFIER = """\
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = "."  # this folder, or its name on the Hub
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder).eval()"""

_LOAD_ADAPTER = """\
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = "."  # this folder, or its name on the Hub
tokenizer = AutoTokenizer.from_pretrained(folder)
base = AutoModelForSequenceClassification.from_pretrained(
    {base!r}, num_labels=1, pad_token_id=tokenizer.pad_token_id
)
model = PeftModel.from_pretrained(base, folder).eval()"""

_REWARD = """\
---
library_name: {library}
pipeline_tag: text-classification
tags:
- {tag}
- reward-model
---

# Reward model

{what}

```python
{load}

text = {dialogue!r}
logit = model(**tokenizer(text, add_special_tokens=False, return_tensors="pt")).logits[0, 0]
score = logit - {offset!r}
```

- **Text.** Dialogues are written by the tokenizer's chat template and end with the answer's stop token, `{stop}`, as
  above. The score is that of the last token: cut off what the template writes after the last `{stop}`, and let the
  tokenizer add no special tokens of its own. An answer that was cut off has no `{stop}`.
- **Scale.** Logits are raw: no sigmoid, and not centred. `calibration.json` has the offset ({offset!r}) to take off,
  and figures of the scores in training. Only differences of scores for one prompt were trained, unless a safety loss
  anchored their zero.
- **Padding.** The pad token, `{pad}`, ends no answer. Keep it: the model finds the last token by it.
- **Pipeline.** `pipeline("text-classification", ...)(text, add_special_tokens=False, function_to_apply="none")` gives
  the raw logit; without `function_to_apply`, a sigmoid may be applied.
"""

_POLICY = """\
---
library_name: {library}
pipeline_tag: text-generation
tags:
- {tag}
---

# Policy

{what}

```python
{load}
prompt = tokenizer.apply_chat_template(
    [{{"role": "user", "content": "Hello"}}], add_generation_prompt=True, return_tensors="pt", return_dict=True
)
print(tokenizer.decode(model.generate(**prompt, do_sample=True, max_new_tokens=200)[0]))
```
"""

_LOAD_POLICY = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # this folder, or its name on the Hub
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder).eval()"""

_LOAD_POLICY_ADAPTER = """\
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # this folder, or its name on the Hub
tokenizer = AutoTokenizer.from_pretrained(folder)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({base!r}), folder).eval()"""


def reward_model_card(model: RewardModel, tokenizer: PreTrainedTokenizerBase, *, base: str, merged: bool) -> str:
    """The card of an exported reward model.

    Args:
        model: what is exported.
        tokenizer: as it is exported, with its pad token.
        base: the base's name or folder.
        merged: the adapter is merged in.
    """
    whole = f"Trained by Tandem as a LoRA adapter on `{base}`, which is merged in."
    if model.role is None:
        whole = "Trained by Tandem, all weights."
    return _REWARD.format(
        library="transformers" if merged else "peft",
        tag=TAG,
        what=whole if merged else f"A LoRA adapter and a score layer, trained by Tandem on `{base}`.",
        load=_LOAD_CLASSIFIER if merged else _LOAD_ADAPTER.format(base=base),
        dialogue=_dialogue(model),
        offset=model.offset,
        stop=tokenizer.convert_ids_to_tokens(model.backbone.encoder.stop_id),
        pad=tokenizer.pad_token,
    )


def policy_card(*, base: str, merged: bool) -> str:
    """The card of an exported policy; arguments as above."""
    whole = f"Trained by Tandem from `{base}`; a whole model."
    return _POLICY.format(
        library="transformers" if merged else "peft",
        tag=TAG,
        what=whole if merged else f"A LoRA adapter, trained by Tandem on `{base}`.",
        load=_LOAD_POLICY if merged else _LOAD_POLICY_ADAPTER.format(base=base),
    )


def _dialogue(model: RewardModel) -> str:
    """A short dialogue as the reward model reads it."""
    encoder = model.backbone.encoder
    ids = encoder.encode_answer([Message(role="user", content="Hello")], "Hi.").input_ids
    return str(model.backbone.tokenizer.decode(ids))
