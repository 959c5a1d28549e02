"""Language models behind a real server that speaks OpenAI's protocol."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from borough.adapters.models.endpoint import ModelEndpoint, OpenAiModels
from borough.adapters.models.registry import read_registry
from borough.core.errors import BoroughError, Forbidden, Invalid, Unavailable
from borough.governance.models import BUILT_IN, Model, Purpose
from tests.services.loopback import serving

pytestmark = pytest.mark.anyio
KEY = "sk-or-v1-very-secret"
HAIKU = "anthropic/claude-haiku-4-5"


class Provider:
    """Answers in turn; notes what it was asked."""

    def __init__(self, *answers: web.Response | dict[str, Any]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.keys: set[str | None] = set()
        self.go_on = asyncio.Event()
        self.slow = False

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append((request.path, await request.json()))
        self.keys.add(request.headers.get("Authorization"))
        if self.slow:
            await self.go_on.wait()
        answer = self.answers.pop(0)
        return answer if isinstance(answer, web.Response) else web.json_response(answer)


@asynccontextmanager
async def models(provider: Provider, **changed: Any) -> AsyncIterator[OpenAiModels]:
    async with serving(provider.answer) as port:
        given: dict[str, Any] = {
            "base_url": f"http://127.0.0.1:{port}/api/v1", "api_key": KEY, "first_wait_s": 0.001, "timeout_s": 20.0,
        }  # fmt: skip
        adapter = OpenAiModels(ModelEndpoint(**(given | changed)))
        try:
            yield adapter
        finally:
            provider.go_on.set()
            await adapter.close()


def said(text: str, **more: Any) -> dict[str, Any]:
    return {
        "model": HAIKU,
        "choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 500},
        **more,
    }


async def test_a_prompt_is_completed_and_priced_by_the_table() -> None:
    provider = Provider(said("forty-two"))
    async with models(provider) as adapter:
        reply = await adapter.complete(model=HAIKU, prompt="6 x 7?", system="be brief")
    assert (reply.output, reply.model) == ({"text": "forty-two"}, HAIKU)
    assert (reply.input_tokens, reply.output_tokens, reply.cost_micros) == (1000, 500, 3_500)
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "6 x 7?"}]
    assert provider.asked == [("/api/v1/chat/completions", {"model": HAIKU, "messages": messages})]
    assert provider.keys == {f"Bearer {KEY}"}


async def test_what_the_provider_says_of_the_cost_counts_more() -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "cost": 0.0000121}
    provider = Provider(said("x", usage=usage), said("x", usage={**usage, "cost": -1}), said("x", usage=None))
    async with models(provider) as adapter:
        told, nonsense, silent = [await adapter.complete(model=HAIKU, prompt="p", system=None) for _ in range(3)]
    assert told.cost_micros == 13
    assert nonsense.cost_micros == 22
    assert silent.input_tokens > 0
    assert silent.cost_micros > 0


async def test_a_model_may_ask_for_tools() -> None:
    calls = [
        {"id": "1", "type": "function", "function": {"name": "fs_read", "arguments": '{"path": "/a"}'}},
        {"id": "2", "type": "function", "function": {"name": "echo", "arguments": "{broken"}},
        {"id": "3", "type": "function", "function": {"name": "agent_info", "arguments": ""}},
    ]
    choice = {"finish_reason": "tool_calls", "message": {"content": None, "tool_calls": calls}}
    provider = Provider(said("", choices=[choice]), said("done"))
    tools: tuple[dict[str, object], ...] = (
        {"name": "echo", "description": "Returns it.", "input_schema": {"type": "object"}},
        {"type": "function", "function": {"name": "fs_read", "parameters": {}}},
    )
    messages = ({"role": "user", "content": "read /a"},)
    async with models(provider) as adapter:
        asked = await adapter.chat(model=HAIKU, messages=messages, tools=tools, tool_choice="echo")
        done = await adapter.chat(model=HAIKU, messages=messages, tools=tools, tool_choice="auto")
    assert asked.output == {
        "finish_reason": "tool_calls",
        "tool_calls": [
            {"id": "1", "name": "fs_read", "arguments": {"path": "/a"}},
            {"id": "2", "name": "echo", "arguments": "{broken"},
            {"id": "3", "name": "agent_info", "arguments": {}},
        ],
    }
    assert done.output == {"finish_reason": "stop", "text": "done"}
    first, second = (body for _, body in provider.asked)
    assert [tool["function"]["name"] for tool in first["tools"]] == ["echo", "fs_read"]
    assert first["tool_choice"] == {"type": "function", "function": {"name": "echo"}}
    assert second["tool_choice"] == "auto"


async def test_texts_become_vectors_in_their_order() -> None:
    data = [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0, 0.5]}]
    answer = {"model": "openai/text-embedding-3-small", "data": data, "usage": {"prompt_tokens": 8}}
    provider = Provider(answer, answer)
    async with models(provider) as adapter:
        reply = await adapter.embed(model="openai/text-embedding-3-small", inputs=("a", "b"))
        with pytest.raises(Unavailable, match="not available"):
            await adapter.embed(model="openai/text-embedding-3-small", inputs=("a",))
    assert reply.output == {"embeddings": [[1.0, 0.5], [2.0]]}
    assert (reply.input_tokens, reply.output_tokens, reply.cost_micros) == (8, 0, 1)


async def test_a_busy_endpoint_is_asked_again_as_it_wishes() -> None:
    busy = web.json_response({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "0"})
    provider = Provider(busy, web.Response(status=503), said("at last"))
    async with models(provider) as adapter:
        reply = await adapter.complete(model=HAIKU, prompt="p", system=None)
    assert reply.output == {"text": "at last"}
    assert len(provider.asked) == 3


@pytest.mark.parametrize(
    ("answer", "kind", "code", "attempts"),
    [
        ((401, {"error": {"message": f"bad key {KEY}"}}), Forbidden, "model_key_refused", 1),
        ((400, {"error": {"message": "no such model"}}), Invalid, "model_refused", 1),
        ((402, {"error": "empty"}), Unavailable, "model_unavailable", 1),
        ((408, {}), Unavailable, "model_timeout", 1),
        ((429, {}), Unavailable, "model_rate_limited", 3),
        ((500, {"error": {"message": f"echo {KEY}"}}), Unavailable, "model_unavailable", 3),
        ((302, {}), Unavailable, "model_unavailable", 1),
        ((200, {"error": {"message": "overloaded", "code": 429}}), Unavailable, "model_rate_limited", 3),
        ((200, {"choices": []}), Unavailable, "model_unavailable", 1),
        ((200, {"choices": [{"message": {"content": 7}}]}), Unavailable, "model_unavailable", 1),
        ((200, "{not json " + KEY), Unavailable, "model_unavailable", 1),
    ],
)
async def test_what_fails_says_how_and_never_tells_the_key(
    answer: tuple[int, Any], kind: type[BoroughError], code: str, attempts: int, caplog: pytest.LogCaptureFixture
) -> None:
    status, body = answer
    text = body if isinstance(body, str) else json.dumps(body)
    provider = Provider(*(web.Response(status=status, text=text) for _ in range(attempts)))
    caplog.set_level(0)
    async with models(provider) as adapter:
        with pytest.raises(kind) as failure:
            await adapter.complete(model=HAIKU, prompt="p", system=None)
        told = f"{failure.value!r} {vars(failure.value)} {adapter!r} {adapter._endpoint!r} {caplog.text}"
    assert failure.value.code == code
    assert failure.value.resolution
    assert KEY not in told
    assert len(provider.asked) == attempts


async def test_a_long_wait_is_not_waited_for_and_a_slow_answer_ends() -> None:
    provider = Provider(web.Response(status=429, headers={"Retry-After": "3600"}), said("never read"))
    async with models(provider) as adapter:
        with pytest.raises(Unavailable) as failure:
            await adapter.complete(model=HAIKU, prompt="p", system=None)
    assert failure.value.code == "model_rate_limited"
    provider = Provider(said("too late"))
    provider.slow = True
    async with models(provider, timeout_s=0.3) as adapter:
        with pytest.raises(Unavailable) as failure:
            await adapter.complete(model=HAIKU, prompt="p", system=None)
        provider.go_on.set()
    assert failure.value.code == "model_timeout"
    assert len(provider.asked) == 1


async def test_without_a_key_only_a_server_nearby_is_asked() -> None:
    far = OpenAiModels(ModelEndpoint())
    with pytest.raises(Unavailable) as failure:
        await far.complete(model=HAIKU, prompt="p", system=None)
    assert failure.value.code == "model_not_configured"
    provider = Provider(said("hello"))
    async with models(provider, api_key=None) as adapter:
        assert (await adapter.complete(model="local/x", prompt="p", system=None)).output == {"text": "hello"}
    assert provider.keys == {None}


@pytest.mark.parametrize("url", ["http://models.example/v1", "ftp://x", "https://u:p@models.example/v1", "nonsense"])
def test_a_key_does_not_go_out_in_the_clear(url: str) -> None:
    with pytest.raises(Invalid) as refusal:
        OpenAiModels(ModelEndpoint(base_url=url, api_key=KEY))
    assert refusal.value.code == "insecure_model_endpoint"


async def test_nobody_there_is_said_so() -> None:
    async with serving(Provider().answer) as port:
        closed = port
    adapter = OpenAiModels(ModelEndpoint(base_url=f"http://127.0.0.1:{closed}", first_wait_s=0.001))
    with pytest.raises(Unavailable) as failure:
        await adapter.complete(model=HAIKU, prompt="p", system=None)
    await adapter.close()
    assert failure.value.code == "model_unavailable"
    assert "cannot be reached" in (failure.value.reason or "")


def test_a_file_may_say_which_models_there_are(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(
        "- {id: local/a, input: 0.1, output: 0.25, speed: 2, capability: 3}\n- {id: e, input: 1, purpose: embedding}\n"
    )
    assert read_registry(path) == (
        Model(id="local/a", input_micros=100_000, output_micros=250_000, speed_rank=2, capability_rank=3),
        Model(
            id="e", input_micros=1_000_000, output_micros=0, speed_rank=1, capability_rank=1, purpose=Purpose.EMBEDDING
        ),
    )
    assert len({entry.id for entry in BUILT_IN}) == len(BUILT_IN)


@pytest.mark.parametrize("text", ["", "a: 1", "- {id: a}", "- {id: a, input: -1}", "- {id: a, input: 1, price: 2}",
                                  "- {id: a, input: 1}\n- {id: a, input: 2}"])  # fmt: skip
def test_a_file_that_says_something_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(text)
    with pytest.raises(Invalid) as refusal:
        read_registry(path)
    assert refusal.value.code == "invalid_registry"
    with pytest.raises(Invalid):
        read_registry(tmp_path / "missing.yaml")
