"""Pretrain the toy base model (tokenizer and a tiny Llama) on the toy corpus.

Only for ``model.name_or_path=toy``; any other base model comes pretrained.

    python -m stages.base
    python -m stages.base base.steps=200 run_dir=runs/quick
"""

from __future__ import annotations

from typing import Any

from alignment.files import resolve
from alignment.run.run_folder import RunFolder
from alignment.settings.recipe import Recipe
from alignment.toy.toy_base_model import new_model, pretrain, read_corpus, save_base
from alignment.toy.toy_tokenizer import encode_document, train_tokenizer
from stages.door.preconditions import check_base
from stages.door.progress_and_exit import progress


def run(recipe: Recipe) -> dict[str, Any]:
    """Make ``base/`` in the run folder; returns the stage's result."""
    # Check the settings and read the corpus.
    check_base(recipe)
    folder = RunFolder(recipe.run_dir)
    folder.look("base", recipe)
    corpus = resolve(recipe.base.corpus)
    texts = read_corpus(str(corpus), on_error=recipe.data.on_error)
    with folder.lock():
        stage = folder.begin("base", recipe)
        # Train the tokenizer and encode the corpus with it.
        tokenizer = train_tokenizer(
            texts, vocabulary_size=recipe.base.vocabulary_size, context_tokens=recipe.base.context_tokens
        )
        documents = [encode_document(tokenizer, text) for text in texts]
        # Pretrain a new model, with a line of metrics at each report.
        model = new_model(recipe.base)
        with progress("base: pretraining") as on_step:

            def log(step: int, total: int, figures: dict[str, float]) -> None:
                on_step(step, total, figures)
                stage.log({"step": step, **figures})

            loss = pretrain(model, documents, recipe.base, dtype=recipe.model.dtype, on_step=log)
        # Save both and write the result.
        save_base(model, tokenizer, stage.folder)
        result = {
            "documents": len(documents),
            "tokens": sum(map(len, documents)),
            "parameters": model.num_parameters(),
            "final_loss_nats_per_token": loss,
        }
        return folder.finish(stage, result, inputs=[corpus])
