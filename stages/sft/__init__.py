"""Supervised fine-tuning on curated dialogues, loss on the answers only (section 3.1).

Needs the base model; leaves ``sft/``, a standard Hugging Face model folder with the adapter merged in.

    python -m stages.sft
    python -m stages.sft sft.data=my_dialogues.jsonl sft.epochs=3
"""
