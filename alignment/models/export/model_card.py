"""The ``README.md`` of an exported folder: what it was made from, how to load it, what to know before one does.

No card names a folder of the machine that it was written on.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import transformers
from huggingface_hub import try_to_load_from_cache

from alignment.data.records import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from alignment.models.scorers.reward_model import RewardModel

CARD = "README.md"
TAG = "tandem-rlhf"
OWN_FOLDER = "path/to/the/base"
"""In the code of a card: for people to fill in, where the base is a folder and has no name on the Hub."""


HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


class Origin(NamedTuple):
    """What an exported model was made from, as others may know it."""

    name: str | None
    """On the Hub; ``None``: a folder, whose name would tell nobody anything."""
    licence: str | None
    """As the base's own card says; ``None``: it does not say."""

    @classmethod
    def of(cls, path: str) -> Origin:
        """The origin at a path or Hub name; nothing is asked of the Hub, only what was downloaded is read."""
        is_folder = Path(path).is_dir() or not HUB_NAME.fullmatch(path)  # a folder may have gone since
        card = Path(path, CARD) if is_folder else try_to_load_from_cache(path, CARD)
        text = Path(card).read_text(encoding="utf-8") if isinstance(card, str | Path) and Path(card).is_file() else ""
        header = text.split("---")[1] if text.startswith("---") else ""
        found = re.search(r"^license: *[\"']?([\w.+-]+)", header, flags=re.MULTILINE)
        return cls(None if is_folder else path, found[1] if found else None)

    @property
    def metadata(self) -> str:
        """Lines of a card's header."""
        lines = [f"base_model: {self.name}"] if self.name else []
        lines += [f"license: {self.licence}"] if self.licence else []
        return "".join(f"{line}\n" for line in lines)

    @property
    def sentence(self) -> str:
        """The same in words, with what is not known."""
        base = f"Base model: `{self.name}`" if self.name else "Base model: one without a name on the Hub"
        licence = f"its licence: {self.licence}" if self.licence else "its licence is unknown here, ask who made it"
        needed = f"Written with Transformers {transformers.__version__}: load it with that or a later one."
        return f"{base}; {licence}. {needed}"


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
{metadata}tags:
- {tag}
- reward-model
---

# Reward model

{what} {origin}

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
{metadata}tags:
- {tag}
---

# Policy

{what} {origin}

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


def reward_model_card(
    model: RewardModel, tokenizer: PreTrainedTokenizerBase, *, base: str | None, origin: Origin, merged: bool
) -> str:
    """The card of an exported reward model.

    Args:
        model: what is exported.
        tokenizer: as it is exported, with its pad token.
        base: name on the Hub of what an adapter is for; ``None``: a folder.
        origin: what the model was made from, and its licence.
        merged: the adapter is merged in.
    """
    whole = "Trained by Tandem as a LoRA adapter, which is merged in."
    if model.role is None:
        whole = "Trained by Tandem, all weights."
    return _REWARD.format(
        library="transformers" if merged else "peft",
        tag=TAG,
        metadata=origin.metadata,
        what=whole if merged else f"A LoRA adapter and a score layer, trained by Tandem for {_named(base)}.",
        origin=origin.sentence,
        load=_LOAD_CLASSIFIER if merged else _LOAD_ADAPTER.format(base=base or OWN_FOLDER),
        dialogue=_dialogue(model),
        offset=model.offset,
        stop=tokenizer.convert_ids_to_tokens(model.backbone.encoder.stop_id),
        pad=tokenizer.pad_token,
    )


def policy_card(*, base: str | None, origin: Origin, merged: bool) -> str:
    """The card of an exported policy; arguments as above."""
    return _POLICY.format(
        library="transformers" if merged else "peft",
        tag=TAG,
        metadata=origin.metadata,
        what="Trained by Tandem; a whole model."
        if merged
        else f"A LoRA adapter, trained by Tandem for {_named(base)}.",
        origin=origin.sentence,
        load=_LOAD_POLICY if merged else _LOAD_POLICY_ADAPTER.format(base=base or OWN_FOLDER),
    )


def _named(base: str | None) -> str:
    return f"`{base}`" if base else "a model that was fine-tuned before it and has to be got with it"


def _dialogue(model: RewardModel) -> str:
    """A short dialogue as the reward model reads it."""
    encoder = model.backbone.encoder
    ids = encoder.encode_answer([Message(role="user", content="Hello")], "Hi.").input_ids
    return str(model.backbone.tokenizer.decode(ids))
