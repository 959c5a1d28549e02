"""The chat and embedding requests of OpenAI's protocol, and what comes back, read with suspicion."""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from borough.core.errors import Invalid
from borough.governance.models import Model, find, price_micros
from borough.governance.ports.outside import ModelReply

_MICROS = 1_000_000
_LETTERS_A_TOKEN = 4
_CHOICES = ("auto", "none", "required")


class _Function(msgspec.Struct):
    name: str
    arguments: str | dict[str, Any] = ""


class _ToolCall(msgspec.Struct):
    function: _Function
    id: str = ""


class _Message(msgspec.Struct):
    content: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = None


class ChatAnswer(msgspec.Struct):
    """What ``/chat/completions`` answers, as far as it is of use."""

    choices: list[_Choice]
    model: str | None = None
    usage: _Usage | None = None


class _Embedding(msgspec.Struct):
    embedding: list[float]
    index: int = 0


class EmbeddingAnswer(msgspec.Struct):
    """What ``/embeddings`` answers, as far as it is of use."""

    data: list[_Embedding]
    model: str | None = None
    usage: _Usage | None = None


def chat_body(
    model: str, messages: Sequence[Mapping[str, object]], tools: Sequence[Mapping[str, object]], tool_choice: str | None
) -> dict[str, object]:
    """Return the request for a conversation.

    Raises:
        Invalid: a tool has no name (``model_refused``).
    """
    body: dict[str, object] = {"model": model, "messages": [dict(message) for message in messages]}
    if tools:
        body["tools"] = [_tool(tool) for tool in tools]
    if tools and tool_choice:
        named = {"type": "function", "function": {"name": tool_choice}}
        body["tool_choice"] = tool_choice if tool_choice in _CHOICES else named
    return body


def chat_reply(answer: ChatAnswer, body: Mapping[str, object], registry: Sequence[Model]) -> ModelReply:
    """Return what a conversation's answer says; raises ``ValueError`` when it says nothing."""
    if not answer.choices:
        raise ValueError("it holds no answer")
    choice = answer.choices[0]
    calls = choice.message.tool_calls or []
    text = choice.message.content or ""
    output: dict[str, object] = {"finish_reason": "tool_calls" if calls else choice.finish_reason or "stop"}
    if calls:
        output["tool_calls"] = [
            {"id": call.id, "name": call.function.name, "arguments": _arguments(call.function.arguments)}
            for call in calls
        ]
    if text or not calls:
        output["text"] = text
    said = text + "".join(str(call.function.arguments) for call in calls)
    return _reply(output, answer, body, said=said, registry=registry)


def embedding_reply(
    answer: EmbeddingAnswer, body: Mapping[str, object], count: int, registry: Sequence[Model]
) -> ModelReply:
    """Return the vectors in the order of the texts; raises ``ValueError`` when they are not as many."""
    vectors = [one.embedding for one in sorted(answer.data, key=lambda one: one.index)]
    if len(vectors) != count:
        raise ValueError(f"it holds {len(vectors)} vectors for {count} texts")
    return _reply({"embeddings": vectors}, answer, body, said="", registry=registry)


def _reply(
    output: Mapping[str, object],
    answer: ChatAnswer | EmbeddingAnswer,
    body: Mapping[str, object],
    *,
    said: str,
    registry: Sequence[Model],
) -> ModelReply:
    used, model = answer.usage or _Usage(), answer.model
    # An endpoint that does not count is counted for: a budget of tokens holds there too.
    asked = used.prompt_tokens if used.prompt_tokens is not None else _estimate(str(body))
    given = used.completion_tokens if used.completion_tokens is not None else _estimate(said)
    asked, given = max(asked, 0), max(given, 0)
    requested = str(body["model"])
    entry = find(registry, requested) or find(registry, model or requested)
    told = _told_cost(used.cost)
    listed = price_micros(entry, input_tokens=asked, output_tokens=given) if entry else 0
    return ModelReply(
        output=output,
        model=model or requested,
        input_tokens=asked,
        output_tokens=given,
        cost_micros=listed if told is None else told,
    )


def _told_cost(cost: float | None) -> int | None:
    if cost is None or not math.isfinite(cost) or cost < 0:
        return None
    return math.ceil(Decimal(str(cost)) * _MICROS)


def _estimate(text: str) -> int:
    return -(-len(text) // _LETTERS_A_TOKEN)


def _tool(tool: Mapping[str, object]) -> dict[str, object]:
    """Return a function's definition in the protocol's envelope, in which it may be already."""
    if isinstance(tool.get("function"), Mapping):
        return {"type": "function", "function": tool["function"]}
    if not isinstance(tool.get("name"), str):
        raise Invalid(
            "a tool for the model has no name",
            code="model_refused",
            resolution="give each tool a name, a description and parameters (JSON Schema)",
        )
    parameters = tool.get("parameters") or tool.get("input_schema") or {"type": "object"}
    return {
        "type": "function",
        "function": {"name": tool["name"], "description": tool.get("description", ""), "parameters": parameters},
    }


def _arguments(given: str | dict[str, Any]) -> object:
    """Return a call's arguments; as the text that the model wrote when that is no JSON."""
    if isinstance(given, dict) or not given:
        return given or {}
    try:
        return msgspec.json.decode(given)
    except msgspec.DecodeError:
        return given
