"""The web tools: under the agent's network policy at every hop."""

from collections.abc import Awaitable, Callable, Mapping

from borough.core.errors import Unavailable
from borough.governance.ports.outside import Web
from borough.governance.ports.tools import ToolCall, ToolReply
from borough.governance.services.tool_failures import failed_with

MOST_BODY_BYTES = 1_048_576
FETCH_TIMEOUT_S = 30.0
_TEXTS = {
    "connection_refused": "connection refused",
    "timeout": "timeout",
    "not_resolved": "the host name cannot be resolved",
    "parse_error": "parse error",
}


class WebTools:
    """``web.fetch`` and ``web.search``."""

    def __init__(self, web: Web) -> None:
        self._web = web

    def handlers(self) -> Mapping[str, Callable[[ToolCall], Awaitable[ToolReply]]]:
        """Return what runs each tool."""
        return {"web.fetch": self._fetch, "web.search": self._search}

    async def _fetch(self, call: ToolCall) -> ToolReply:
        headers = call.arguments.get("headers")
        named = {str(name): str(value) for name, value in headers.items()} if isinstance(headers, Mapping) else {}
        try:
            page = await self._web.fetch(
                call.manifest.network,
                str(call.arguments["url"]),
                headers=named,
                timeout_s=FETCH_TIMEOUT_S,
                limit_bytes=MOST_BODY_BYTES,
            )
        except Unavailable as error:
            return _unreachable(error)
        output: dict[str, object] = {"status": page.status, "body": page.body, "headers": dict(page.headers)}
        if page.truncated:
            output["truncated"] = True
        return ToolReply(status="success", output=output)

    async def _search(self, call: ToolCall) -> ToolReply:
        try:
            results = await self._web.search(
                call.manifest.network, str(call.arguments["query"]), timeout_s=FETCH_TIMEOUT_S
            )
        except Unavailable as error:
            return _unreachable(error)
        return ToolReply(status="success", output={"results": [dict(result) for result in results]})


def _unreachable(error: Unavailable) -> ToolReply:
    if error.code not in _TEXTS:
        raise error
    return failed_with(error, _TEXTS[error.code])
