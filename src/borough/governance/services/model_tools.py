"""The model tools: which model, at what cost, and what is told to it of data from outside."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from borough.core.errors import BoroughError, Forbidden, Invalid, Unavailable
from borough.core.ids import new_id
from borough.governance.agents import GovernedAgent
from borough.governance.budgets import from_micros
from borough.governance.decisions import Denied
from borough.governance.models import BUILT_IN, Model, Purpose, choose
from borough.governance.outputs import guarded, warning
from borough.governance.ports.outside import ModelReply, Models
from borough.governance.ports.register import Agents
from borough.governance.ports.tools import ToolCall, ToolReply
from borough.governance.services.tool_failures import failed_with

_TOOL_FAILURES = frozenset(
    {
        "model_unavailable",
        "model_rate_limited",
        "model_timeout",
        "model_refused",
        "model_key_refused",
        "model_not_configured",
    }
)
_FROM_OUTSIDE = frozenset({"user", "tool", "function"})
"""The roles of messages in which an agent hands on what it has read."""


class ModelTools:
    """``lm.complete``, ``lm.chat``, ``lm.embed``."""

    def __init__(
        self, agents: Agents, models: Models, *, default: str | None = None, known: Sequence[Model] = BUILT_IN
    ) -> None:
        """``default`` is the model of calls that name none, under the policy ``explicit``."""
        self._agents = agents
        self._models = models
        self._default = default
        self._known = known

    def handlers(self) -> Mapping[str, Callable[[ToolCall], Awaitable[ToolReply]]]:
        """Return what runs each tool."""
        return {
            "lm.complete": self._complete,
            "lm.chat": self._chat,
            "lm.embed": self._embed,
        }

    async def _complete(self, call: ToolCall) -> ToolReply:
        agent = await self._agents.get(call.agent_id)
        prompt, system = str(call.arguments["prompt"]), _optional_text(call.arguments, "system")
        if agent.tainted:
            mark = new_id()
            prompt = guarded(prompt, mark)
            system = f"{warning(mark)}\n\n{system}" if system else warning(mark)
        model = self._model(call, agent, Purpose.CHAT)
        return await _told(self._models.complete(model=model, prompt=prompt, system=system))

    async def _chat(self, call: ToolCall) -> ToolReply:
        agent = await self._agents.get(call.agent_id)
        messages = _objects(call.arguments.get("messages"))
        if agent.tainted:
            messages = _guarded_messages(messages)
        model = self._model(call, agent, Purpose.CHAT)
        return await _told(
            self._models.chat(
                model=model,
                messages=messages,
                tools=_objects(call.arguments.get("tools", [])),
                tool_choice=_optional_text(call.arguments, "tool_choice"),
            )
        )

    async def _embed(self, call: ToolCall) -> ToolReply:
        agent = await self._agents.get(call.agent_id)
        given = call.arguments["input"]
        inputs = tuple(map(str, given)) if isinstance(given, list) else (str(given),)
        model = self._model(call, agent, Purpose.EMBEDDING)
        reply = await _told(self._models.embed(model=model, inputs=inputs))
        if isinstance(reply.output, dict):
            reply.output.pop("output_tokens", None)
        return reply

    def _model(self, call: ToolCall, agent: GovernedAgent, purpose: Purpose) -> str:
        limit = agent.budget.cost_micros
        chosen = choose(
            call.manifest.model_policy,
            requested=_optional_text(call.arguments, "model"),
            default=self._default,
            remaining_micros=None if limit is None else max(0, limit - agent.spent.cost_micros),
            registry=self._known,
            purpose=purpose,
        )
        if isinstance(chosen, Denied):
            raise Forbidden(chosen.reason, code=chosen.code, reason=chosen.rule, resolution=chosen.resolution)
        return chosen


async def _told(answering: Awaitable[ModelReply]) -> ToolReply:
    """Return a model's answer as a tool's, with what it really took."""
    try:
        reply = await answering
    except (Unavailable, Invalid, Forbidden) as error:
        return _failure(error)
    output = {
        **reply.output,
        "model": reply.model,
        "input_tokens": reply.input_tokens,
        "output_tokens": reply.output_tokens,
        "cost": from_micros(reply.cost_micros),
    }
    tokens = reply.input_tokens + reply.output_tokens
    return ToolReply(status="success", output=output, cost_micros=reply.cost_micros, tokens=tokens)


def _failure(error: BoroughError) -> ToolReply:
    if error.code not in _TOOL_FAILURES:
        raise error
    return failed_with(error)


def _guarded_messages(messages: tuple[Mapping[str, object], ...]) -> tuple[Mapping[str, object], ...]:
    mark = new_id()
    marked = [
        {**message, "content": guarded(content, mark)}
        if message.get("role") in _FROM_OUTSIDE and isinstance(content := message.get("content"), str)
        else message
        for message in messages
    ]
    return ({"role": "system", "content": warning(mark)}, *marked)


def _objects(value: object) -> tuple[Mapping[str, object], ...]:
    return tuple(each for each in value if isinstance(each, Mapping)) if isinstance(value, list) else ()


def _optional_text(arguments: Mapping[str, object], name: str) -> str | None:
    value = arguments.get(name)
    return None if value is None else str(value)
