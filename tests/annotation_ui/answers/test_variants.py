"""Who answers in the annotation app: policies of a run, models, endpoints; what is known of each, and how they fail."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import child_process
import pytest
from stage_fixtures import ROOT, own_data, own_model, reduced_recipe
from tiny import load_tiny, randomize

from alignment.data.records import Message
from alignment.errors import UserError
from alignment.models.sampling.streaming import Partial, stream_answer
from alignment.run.run_folder import RunFolder
from alignment.settings.sections import SamplingSection
from annotation_ui.answers.endpoint_variant import EndpointVariant
from annotation_ui.answers.load_variants import load_variants
from annotation_ui.answers.variants import LocalVariant, Piece, Unanswerable, Variant, VariantFailed
from annotation_ui.app_settings import AppSettings, VariantSettings

ASK = [Message(role="user", content="what is it")]
KEY = "sk-very-secret-0123456789"
PATIENCE_SECONDS = 60.0


def settings(*variants: dict[str, Any]) -> AppSettings:
    """The app's settings with these two variants, or none."""
    project = {"name": "p", "title": "P", "dimension": "helpfulness"}
    return AppSettings.model_validate({"projects": [project], "variants": variants or None})


def load(run: Path | None, *variants: dict[str, Any]) -> tuple[LocalVariant, LocalVariant]:
    """Two variants that run here."""
    loaded = load_variants(settings(*variants), run)
    assert loaded is not None
    first, second = loaded
    assert isinstance(first, LocalVariant) and isinstance(second, LocalVariant)
    return first, second


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "module",
    ["annotation_ui.answers.variants", "annotation_ui.answers.generation", "annotation_ui.answers.endpoint_variant"],
)
def test_importing_needs_no_torch(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'transformers', 'peft'}} & set(sys.modules)))"
    done = child_process.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_no_variants_are_no_mistake() -> None:
    assert load_variants(settings(), None) is None


class TestPoliciesOfARun:
    @pytest.fixture(scope="class")
    def run(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A run with SFT, an adapter of PPO (the newest policy), and a PPO of a second round that trained all weights.

        Its recipe asks for a sampling copy.
        """
        folder = tmp_path_factory.mktemp("run")
        files = {**own_data(folder / "data"), "pretraining": "none"}
        recipe = reduced_recipe(files, folder / "run", f"model.name_or_path={folder}", "model.sampling_copy=true")
        runs = RunFolder(recipe.run_dir)
        for name, number in (("sft", None), ("ppo", 1), ("ppo", 2)):
            stage = runs.begin(name, recipe, number)
            if (name, number) == ("ppo", 1):
                backbone = load_tiny(runs.stage("sft"))
                backbone.add_adapter("policy", recipe.model.lora)
                randomize(backbone, "policy")
                backbone.save_adapter("policy", stage.folder)
            else:
                own_model(stage.folder, context_tokens=96)
            runs.finish(stage, {}, inputs=[])
        runs.set_policy("ppo", 1)
        return Path(recipe.run_dir)

    def test_share_one_backbone_and_answer_as_themselves(self, run: Path) -> None:
        sft, newest = load(
            run, {"policy": "sft", "max_new_tokens": 5}, {"policy": "newest", "temperature": 0.5, "max_new_tokens": 7}
        )
        assert newest.backbone is sft.backbone
        assert (sft.role, newest.role) == (None, "ppo-1")
        assert sft.backbone._copy is None, "no memory for a sampling copy, which nobody would use"
        for variant, temperature, limit in ((sft, 1.0, 5), (newest, 0.5, 7)):
            for seed in (1, 2, 3):
                sampling = SamplingSection(temperature=temperature, max_new_tokens=limit, batch_size_prompts=1)
                drawn = stream_answer(variant.backbone, variant.role, ASK, sampling, seed=seed)
                expected = [Piece(partial.text, partial.finish_reason, partial.n_tokens) for partial in drawn]
                assert list(variant.stream(ASK, seed=seed)) == expected
                assert expected[-1].finish_reason in ("stop", "length")

    def test_are_described_by_what_they_are(self, run: Path) -> None:
        sft, ppo = load(run, {"policy": "sft"}, {"policy": "ppo-1", "temperature": 0.5, "max_new_tokens": 7})
        assert (sft.info.name, sft.info.checkpoint) == ("sft@1.0", "sft")
        assert (ppo.info.name, ppo.info.checkpoint) == ("ppo-1@0.5", "round-1/ppo")
        assert sft.info.sampling == {"temperature": 1.0, "max_new_tokens": 400}
        assert ppo.info.sampling == {"temperature": 0.5, "max_new_tokens": 7}
        base, adapter = sha256(run / "sft/model.safetensors"), sha256(run / "round-1/ppo/adapter_model.safetensors")
        assert sft.info.weights_sha256 == base
        assert ppo.info.weights_sha256 == hashlib.sha256(f"{base}\n{adapter}\n".encode()).hexdigest()
        template = sha256(run / "sft/chat_template.jinja")
        assert sft.info.chat_template_sha256 == ppo.info.chat_template_sha256 == template

    def test_one_policy_at_two_temperatures_is_loaded_once(self, run: Path) -> None:
        for name in ("newest", "ppo-2"):
            cool, warm = load(run, {"policy": name, "temperature": 0.5}, {"policy": name, "temperature": 1.5})
            assert cool.backbone is warm.backbone
            assert cool.info.name != warm.info.name
            assert cool.info.weights_sha256 == warm.info.weights_sha256

    def test_a_fully_trained_one_has_weights_of_its_own(self, run: Path) -> None:
        adapter, full = load(run, {"policy": "ppo-1"}, {"policy": "ppo-2"})
        assert adapter.backbone is not full.backbone
        assert full.role is None
        assert full.info.weights_sha256 == sha256(run / "round-2/ppo/model.safetensors")

    def test_a_policy_needs_a_run_that_has_it(self, run: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"policy=sft belongs to a run.*--run"):
            load(None, {"policy": "sft"}, {"policy": "sft"})
        with pytest.raises(UserError, match="it has: sft, ppo-1, ppo-2"):
            load(run, {"policy": "sft"}, {"policy": "rejection"})
        with pytest.raises(UserError, match=r"python -m stages\.sft"):
            load(tmp_path, {"policy": "sft"}, {"policy": "sft"})

    def test_a_conversation_that_is_too_long_is_told_to_the_annotator(self, run: Path) -> None:
        sft, _ = load(run, {"policy": "sft", "max_new_tokens": 96}, {"policy": "sft"})
        with pytest.raises(Unanswerable, match=r"too long.*Skip it, or go on") as caught:
            next(sft.stream(ASK, seed=0))
        assert "96 fit" in str(caught.value.__cause__), "the log can tell more"
        assert "96" not in str(caught.value)

    def test_answers_are_drawn_in_turn(self, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two threads read two answers: as long as both wait for their next token, neither gets two in a row."""
        first, second = load(run, {"policy": "sft"}, {"policy": "newest"})
        queue = first._turns._work_queue
        order: list[int] = []

        def scripted(backbone: Any, role: str | None, messages: Any, sampling: Any, *, seed: int) -> Iterator[Partial]:
            for n_tokens in range(1, 21):
                until(lambda: queue.qsize() or len(order) >= 39)  # the other one waits for its turn
                order.append(seed)
                yield Partial("", n_tokens, None)

        monkeypatch.setattr("alignment.models.sampling.streaming.stream_answer", scripted)
        both_wait = threading.Event()
        first._turns.submit(both_wait.wait, PATIENCE_SECONDS)
        threads = [
            threading.Thread(target=lambda v=variant, s=seed: list(v.stream(ASK, seed=s)))
            for seed, variant in enumerate((first, second))
        ]
        for thread in threads:
            thread.start()
        until(lambda: queue.qsize() == 2)
        both_wait.set()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
        assert sorted(order) == [0] * 20 + [1] * 20
        assert all(one != other for one, other in itertools.pairwise(order))


def until(ready: Callable[[], object]) -> None:
    """Wait until something is true; a test that waits in vain fails."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not ready():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.001)


class TestModels:
    def test_a_folder_is_loaded_once_for_two_temperatures(self, tmp_path: Path) -> None:
        folder = own_model(tmp_path / "my-model")
        wanted = {"model": str(folder), "max_new_tokens": 4}
        cool, warm = load(None, {**wanted, "temperature": 0.5}, wanted)
        assert cool.backbone is warm.backbone
        assert (cool.info.name, cool.info.checkpoint) == ("my-model@0.5", str(folder))
        assert cool.info.weights_sha256 == sha256(folder / "model.safetensors")
        sampling = SamplingSection(temperature=0.5, max_new_tokens=4, batch_size_prompts=1)
        (*_, last) = stream_answer(cool.backbone, None, ASK, sampling, seed=3)
        assert list(cool.stream(ASK, seed=3))[-1].text == last.text

    def test_other_folders_are_other_models(self, tmp_path: Path) -> None:
        one, other = load(None, *({"model": str(own_model(tmp_path / name))} for name in "ab"))
        assert one.backbone is not other.backbone

    def test_one_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no such folder"):
            load(None, {"model": str(tmp_path / "nothing")}, {"model": str(tmp_path)})


# -- endpoints -------------------------------------------------------------------------------------------------------


def chunk(text: str | None = None, finish: str | None = None, **more: Any) -> bytes:
    """An event as OpenAI's API sends it; text goes out as it is, not escaped."""
    delta = {} if text is None else {"content": text}
    data = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    return b"data: " + json.dumps({**data, **more}, ensure_ascii=False).encode() + b"\n\n"


def usage(n_tokens: int) -> bytes:
    """The event with the counts, which comes after the finish reason and has no choices."""
    return b"data: " + json.dumps({"choices": [], "usage": {"completion_tokens": n_tokens}}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


class Server(ThreadingHTTPServer):
    """Answers every request with a script: bytes to send, and events to wait for before going on."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[bytes | threading.Event] = []
        self.status = 200
        self.content_type = "text/event-stream"
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, dict(self.headers), body))
        self.send_response(self.server.status)
        self.send_header("Content-Type", self.server.content_type)
        self.end_headers()
        for step in self.server.script:
            if isinstance(step, bytes):
                self.wfile.write(step)
                self.wfile.flush()
            else:
                step.wait(PATIENCE_SECONDS)

    def log_message(self, *unused: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def endpoint(url: str, **changes: Any) -> EndpointVariant:
    given = {"endpoint": url, "endpoint_model": "big", "temperature": 0.7, "max_new_tokens": 9, **changes}
    return EndpointVariant.from_settings(VariantSettings.model_validate(given))


def answers(server: Server, *script: bytes | threading.Event, **changes: Any) -> list[Piece]:
    """What an endpoint variant makes of a scripted response."""
    server.script = list(script)
    return list(endpoint(server.url, **changes).stream(ASK, seed=11))


def failure(server: Server, *script: bytes, **changes: Any) -> str:
    """How it fails."""
    with pytest.raises(VariantFailed) as caught:
        answers(server, *script, **changes)
    return str(caught.value)


class TestEndpoints:
    def test_the_text_grows_until_its_end(self, server: Server) -> None:
        script = [chunk(""), chunk("The "), chunk("sea"), chunk(finish="stop"), usage(5), DONE]
        assert answers(server, *script) == [Piece("The "), Piece("The sea"), Piece("The sea", "stop", 5)]

    def test_it_is_yielded_as_it_comes(self, server: Server) -> None:
        more = threading.Event()
        server.script = [chunk("a"), more, chunk("b", "stop"), DONE]
        stream = endpoint(server.url).stream(ASK, seed=0)
        assert next(stream) == Piece("a")
        more.set()
        assert [piece.text for piece in stream] == ["ab", "ab"]

    def test_the_question_says_everything(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MY_KEY", f"{KEY}\n")
        dialogue = [
            Message(role="system", content="be brief"),
            *ASK,
            Message(role="assistant", content="x"),
            Message(role="user", content="why"),
        ]
        server.script = [chunk("a", "stop"), DONE]
        list(endpoint(f"{server.url}/", api_key_env="MY_KEY").stream(dialogue, seed=11))
        ((path, headers, body),) = server.requests
        assert path == "/v1/chat/completions"
        assert headers["Authorization"] == f"Bearer {KEY}"
        assert body == {
            "model": "big",
            "messages": [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": "what is it"},
                {"role": "assistant", "content": "x"},
                {"role": "user", "content": "why"},
            ],
            "temperature": 0.7,
            "max_tokens": 9,
            "seed": 11,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def test_no_key_no_header(self, server: Server) -> None:
        answers(server, chunk("a", "stop"))
        assert "Authorization" not in server.requests[0][1]

    def test_what_is_known_of_it(self) -> None:
        info = endpoint("http://host:8000/v1").info
        assert (info.name, info.checkpoint) == ("big@0.7", "big at http://host:8000/v1")
        assert info.sampling == {"temperature": 0.7, "max_new_tokens": 9}
        assert info.weights_sha256 is None and info.chat_template_sha256 is None

    @pytest.mark.parametrize(
        ("theirs", "ours"), [("stop", "stop"), ("eos_token", "stop"), ("length", "length"), ("max_tokens", "length")]
    )
    def test_finish_reasons(self, server: Server, theirs: str, ours: str) -> None:
        assert answers(server, chunk("a", theirs))[-1] == Piece("a", ours, None)  # type: ignore[arg-type]

    @pytest.mark.parametrize("reason", ["content_filter", "tool_calls"])
    def test_what_is_no_answer_fails(self, server: Server, reason: str) -> None:
        assert f"finish_reason='{reason}'" in failure(server, chunk("a", reason), DONE)

    def test_blocks_may_end_anywhere_and_lines_only_where_they_do(self, server: Server) -> None:
        text = "one\u2028two\x85three é€😀"  # the first two end a line for Python's splitlines
        lines = b": a comment\nevent: message\n" + chunk(text) + chunk(finish="stop") + DONE + b"data: garbage\n\n"
        raw = lines.replace(b"\n", b"\r\n")
        assert answers(server, *(raw[place : place + 1] for place in range(len(raw))))[-1].text == text
        assert answers(server, raw)[-1].text == text

    def test_characters_in_two_halves_are_joined(self, server: Server) -> None:
        script = [
            chunk("x"),
            *(chunk("?").replace(b"?", half) for half in (rb"\ud83d", rb"\ude00")),
            chunk(finish="stop"),
        ]
        assert [piece.text for piece in answers(server, *script)] == ["x", "x", "x😀", "x😀"]

    def test_a_last_line_without_an_end_counts(self, server: Server) -> None:
        assert answers(server, chunk("a", "stop").rstrip())[-1] == Piece("a", "stop")

    def test_nothing_after_the_end_is_read(self, server: Server) -> None:
        assert answers(server, chunk("a", "stop"), DONE, b"data: garbage\n\n")[-1].text == "a"


class TestEndpointsThatFail:
    def test_no_server(self) -> None:
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))  # taken, and nobody listens
            url = f"http://127.0.0.1:{held.getsockname()[1]}"
            with pytest.raises(VariantFailed, match=r"cannot be reached .*Is the server running\?") as caught:
                list(endpoint(url).stream(ASK, seed=0))
        assert url in str(caught.value)

    @pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
    def test_a_status_that_is_an_error(self, server: Server, status: int) -> None:
        server.status, server.content_type = status, "application/json"
        said = failure(server, b'{"error": {"message": "no such model"}}')
        assert f"status {status}" in said and "no such model" in said and server.url in said

    def test_a_redirect_is_not_followed(self, server: Server) -> None:
        server.status = 307
        assert "status 307" in failure(server)

    def test_a_long_reason_is_cut(self, server: Server) -> None:
        server.status = 500
        assert len(failure(server, b"x" * 100_000)) < 5000

    def test_a_conversation_that_is_too_long_is_told_to_the_annotator(self, server: Server) -> None:
        server.status = 400
        with pytest.raises(Unanswerable, match=r"too long for a model\. Begin a new one") as caught:
            answers(server, b'{"message": "This model\'s maximum context length is 64 tokens."}')
        assert "64" not in str(caught.value) and server.url not in str(caught.value)

    @pytest.mark.parametrize(
        "data",
        [b"<html>", b"[1]", b'"error"', b'{"choices": 3}', b'{"choices": [{"delta": {"content": 3}}]}', b"null"],
        ids=["not JSON", "a list", "a text", "choices are no list", "content is no text", "null"],
    )
    def test_what_is_no_chat_completion(self, server: Server, data: bytes) -> None:
        assert "is no chat completion" in failure(server, chunk("a"), b"data: " + data + b"\n\n")

    def test_no_stream_at_all(self, server: Server) -> None:
        server.content_type = "application/json"
        whole = {"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]}
        assert "ended before the answer did" in failure(server, json.dumps(whole).encode())

    def test_a_stream_without_an_end(self, server: Server) -> None:
        assert "ended before the answer did" in failure(server, chunk("a"))
        assert "ended before the answer did" in failure(server, chunk("a"), DONE)

    def test_an_error_in_mid_answer(self, server: Server) -> None:
        said = failure(server, chunk("a"), b'data: {"error": {"message": "out of memory"}}\n\n')
        assert "error in mid-answer" in said and "out of memory" in said

    def test_a_connection_that_breaks_off(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        def promise_more(self: Handler) -> None:
            self.send_header("Content-Length", "1000")
            BaseHTTPRequestHandler.end_headers(self)

        monkeypatch.setattr(Handler, "end_headers", promise_more)
        assert "the connection broke off" in failure(server, chunk("a"))

    def test_silence(self, server: Server) -> None:
        over = threading.Event()
        server.script = [chunk("a"), over]
        variant = EndpointVariant(endpoint(server.url).info, url=server.url, model="big", silence_seconds=0.5)
        with pytest.raises(VariantFailed, match=r"did not answer in time \(ReadTimeout\)"):
            for piece in variant.stream(ASK, seed=0):
                assert piece.text == "a"
        over.set()


class TestKeys:
    @pytest.fixture(autouse=True)
    def key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MY_KEY", KEY)

    def test_are_in_no_message_and_no_log(
        self, server: Server, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        caplog.set_level(logging.DEBUG)
        variant = endpoint(server.url, api_key_env="MY_KEY")
        said = [repr(variant), repr(variant.info), repr(vars(variant)["_client"].headers)]
        said += [failure(server, chunk("a"), f'data: {{"error": "{KEY}"}}\n\n'.encode(), api_key_env="MY_KEY")]
        said += [failure(server, f"data: {KEY}\n\n".encode(), api_key_env="MY_KEY")]
        server.status = 401
        said += [failure(server, f"wrong key: {KEY}".encode(), api_key_env="MY_KEY")]
        assert "wrong key: (key)" in said[-1]
        assert len(server.requests) == 3 and server.requests[0][1]["Authorization"].endswith(KEY)
        out, err = capfd.readouterr()
        assert not [text for text in (*said, caplog.text, out, err) if KEY in text]

    def test_that_are_missing_name_the_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for value in ("", "  "):
            monkeypatch.setenv("MY_KEY", value)
            with pytest.raises(UserError, match="environment variable MY_KEY is not set"):
                endpoint("http://host/v1", api_key_env="MY_KEY")

    def test_that_no_header_can_hold_are_refused_unseen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MY_KEY", f"{KEY}\nX-Evil: 1")
        with pytest.raises(UserError, match="the key in MY_KEY has characters") as caught:
            endpoint("http://host/v1", api_key_env="MY_KEY")
        assert KEY not in str(caught.value)

    @pytest.mark.parametrize(
        "url",
        [
            f"http://me:{KEY}@host/v1",
            f"http://me:{KEY}@host:port/v1",
            f"me:{KEY}@host/v1",
            f"http://host/v1?key={KEY}",
            "host:8000/v1",
            "ftp://host",
            "http://host:port",
            "/v1",
        ],
    )
    def test_a_url_is_one_of_a_server_without_secrets(self, url: str) -> None:
        with pytest.raises(UserError, match="variants: the endpoint of big") as caught:
            endpoint(url)
        assert KEY not in str(caught.value)


def test_endpoints_and_models_can_answer_together(server: Server, tmp_path: Path) -> None:
    server.script = [chunk("from afar", "stop"), usage(3), DONE]
    wanted = {"endpoint": server.url, "endpoint_model": "big"}
    loaded = load_variants(settings(wanted, {"model": str(own_model(tmp_path / "m")), "max_new_tokens": 3}), None)
    assert loaded is not None
    ends = [list(variant.stream(ASK, seed=1))[-1] for variant in loaded]
    assert ends[0] == Piece("from afar", "stop", 3)
    assert ends[1].finish_reason is not None and ends[1].n_tokens <= 3  # type: ignore[operator]
    check: tuple[Variant, Variant] = loaded
    assert [variant.info.name for variant in check] == ["big@1.0", "m@1.0"]
