"""What several tests of the desk use: why something is refused, and what has been chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from annotation_fixtures import current

from annotation_ui.store.database import Store
from annotation_ui.vocabulary import Refused, Slot

OTHER: dict[Slot, Slot] = {"a": "b", "b": "a"}
SAFETY = {"dimension": "safety", "ask_safety": True}


def refusal(action: Callable[..., Any], *given: Any, **named: Any) -> str:
    """What is said when something cannot be done."""
    with pytest.raises(Refused) as refused:
        action(*given, **named)
    return str(refused.value)


def chosen(store: Store) -> list[tuple[Slot, str]]:
    """Slot and grade of each judgment that holds."""
    return [(row.chosen_slot, row.grade) for row in current(store)]


def outcome(action: Callable[[], Any]) -> str:
    """``refused``, or what happened in its place."""
    try:
        action()
    except Refused:
        return "refused"
    except Exception as error:
        return repr(error)[:80]
    return "accepted"
