"""The Hub is asked once; where it does not answer, what is in the cache is used, and nothing asks again."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import huggingface_hub
import pytest
from httpx import Request, Response
from huggingface_hub import constants
from huggingface_hub.errors import RepositoryNotFoundError

from alignment import hub
from alignment.errors import UserError
from alignment.hub import why_not_there
from alignment.models import model_places
from alignment.models.model_places import check_there


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test was told is forgotten after it."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "_FOUND", {})


def answers(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> list[tuple[str, str, float]]:
    """Have the Hub give this; returns what it is asked: name, kind, seconds to wait."""
    asked: list[tuple[str, str, float]] = []

    def repo_info(self: object, name: str, *, repo_type: str, timeout: float) -> object:
        asked.append((name, repo_type, timeout))
        if error is not None:
            raise error
        return object()

    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", repo_info)
    return asked


def not_found() -> RepositoryNotFoundError:
    request = Request("GET", "https://huggingface.co")
    return RepositoryNotFoundError("no such repository", response=Response(404, request=request))  # type: ignore[arg-type]


def test_it_is_asked_once_and_for_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answers(monkeypatch, None)
    assert why_not_there("dataset", "owner/name") is None
    assert asked == [("owner/name", "dataset", 5.0)]
    assert not huggingface_hub.is_offline_mode()


def test_a_name_that_was_found_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answers(monkeypatch, None)
    check_there("owner/name", "model.x=owner/name")  # at the door
    check_there("owner/name", "owner/name")  # when it is loaded
    assert [name for name, _, _ in asked] == ["owner/name"]
    assert why_not_there("dataset", "owner/name") is None, "a data set of that name is something else"
    assert [kind for _, kind, _ in asked] == ["model", "dataset"]


def test_a_name_that_was_found_long_ago_is_asked_for_again(monkeypatch: pytest.MonkeyPatch, cached: None) -> None:
    """A pipeline waits for people for days: the network may be gone, and the cache has to do."""
    now = 100.0
    monkeypatch.setattr(hub.time, "monotonic", lambda: now)
    answers(monkeypatch, None)
    assert why_not_there("model", "owner/name") is None
    now += hub.REMEMBERED_S + 1
    asked = answers(monkeypatch, ConnectionError("no route"))
    assert why_not_there("model", "owner/name") is None
    assert len(asked) == 1 and huggingface_hub.is_offline_mode()


def test_a_name_that_was_not_found_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever tries again may have mended the network, or been let in."""
    asked = answers(monkeypatch, ConnectionError("no route"))
    assert why_not_there("model", "owner/other") is not None
    asked = answers(monkeypatch, None)
    assert why_not_there("model", "owner/other") is None
    assert len(asked) == 1


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``owner/name`` is in the cache, as a model."""
    (tmp_path / "models--owner--name").mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))


def test_where_it_cannot_be_reached_the_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, ConnectionError("no route"))
    assert str(why_not_there("model", "owner/other")) == "no route"
    assert not huggingface_hub.is_offline_mode(), "something else may be had by then"


def test_what_is_in_the_cache_is_used_without_asking_again(cached: None, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, ConnectionError("no route"))
    assert why_not_there("model", "owner/name") is None
    assert huggingface_hub.is_offline_mode()


def test_a_slow_answer_is_left_to_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, TimeoutError("5 s"))
    assert why_not_there("model", "owner/other") is None
    assert not huggingface_hub.is_offline_mode()


def test_a_name_that_it_does_not_have_is_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, not_found())
    assert "no such repository" in str(why_not_there("model", "owner/other"))
    assert not huggingface_hub.is_offline_mode()


@pytest.mark.parametrize("error", [ConnectionError("no route"), not_found()])
def test_a_model_in_the_cache_is_there_whatever_the_hub_says(
    error: Exception, cached: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, error)
    check_there("owner/name", "model.x=owner/name")
    with pytest.raises(UserError, match=r"model\.x=owner/other: .* as a name on the Hub: no "):
        check_there("owner/other", "model.x=owner/other")


def test_a_folder_asks_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    def refuse(*unused: object) -> NoReturn:
        raise AssertionError("asked the Hub")

    monkeypatch.setattr(model_places, "why_not_there", refuse)
    check_there(str(tmp_path), "model.x")
    with pytest.raises(UserError, match="no such folder"):
        check_there("./nowhere", "model.x")
