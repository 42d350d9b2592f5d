"""Builds the files under ``data/toy`` from the world's code: ``python -m alignment.toy.build``.

The same code gives the same bytes: every file has its own random stream, seeded by its name, and dictionary
order is insertion order throughout.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from alignment.data.jsonl_and_raw_rows import write_jsonl
from alignment.toy.corpus_and_demonstrations import make_demonstrations, make_documents
from alignment.toy.question_pool import QuestionPool
from alignment.toy.toy_prompts import (
    held_out_texts,
    make_heldout_prompts,
    make_selection_prompts,
    make_train_prompts,
)

SEED = 1
FileRecords = Sequence[BaseModel | dict[str, Any]]


def _stream(name: str) -> random.Random:
    return random.Random(f"{SEED}/{name}")


def make_files() -> Mapping[str, FileRecords]:
    """File name -> its records."""
    heldout = make_heldout_prompts(_stream("heldout"))
    pool = QuestionPool(text for prompt in heldout for text in held_out_texts(prompt))
    train = make_train_prompts(pool, _stream("prompts"))
    demonstrations = make_demonstrations(pool, train, _stream("demonstrations"))
    dialogues = [item.messages for item in (*train, *heldout)] + [item.messages for item in demonstrations]
    asked = [message.content for messages in dialogues for message in messages if message.role == "user"]
    return {
        "pretraining.jsonl": [{"text": text} for text in make_documents(pool, _stream("pretraining"))],
        "demonstrations.jsonl": demonstrations,
        "prompts.jsonl": train,
        "selection_prompts.jsonl": make_selection_prompts(asked, _stream("selection")),
        "heldout_prompts.jsonl": heldout,
    }


def write_files(folder: Path) -> dict[str, int]:
    """Write all files into ``folder``; returns file name -> number of records."""
    files = make_files()
    for name, rows in files.items():
        write_jsonl(folder / name, rows)
    return {name: len(rows) for name, rows in files.items()}


def main() -> None:
    """Rebuild ``data/toy`` of this checkout and say what was written."""
    folder = Path(__file__).resolve().parents[2] / "data" / "toy"
    for name, count in write_files(folder).items():
        print(f"{folder / name}: {count} records")


if __name__ == "__main__":
    main()
