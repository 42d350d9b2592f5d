"""Pretrain the toy base model (tokenizer and a tiny Llama) on the toy corpus.

Only for ``model.name_or_path=toy``; any other base model comes pretrained.

    python -m stages.base
    python -m stages.base base.steps=200 run_dir=runs/quick
"""
