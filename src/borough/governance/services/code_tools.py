"""``sandbox.exec``: code in a sandbox of its own."""

from collections.abc import Awaitable, Callable, Mapping

from borough.core.errors import Unavailable
from borough.governance.ports.outside import Execution, Sandbox
from borough.governance.ports.tools import ToolCall, ToolReply
from borough.governance.services.tool_failures import failed_with

DEFAULT_TIMEOUT_MS = 5000


class CodeTools:
    """Runs code that agents wrote."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def handlers(self) -> Mapping[str, Callable[[ToolCall], Awaitable[ToolReply]]]:
        """Return what runs each tool."""
        return {"sandbox.exec": self._execute}

    async def _execute(self, call: ToolCall) -> ToolReply:
        given = call.arguments
        timeout_ms = given.get("timeout_ms", DEFAULT_TIMEOUT_MS)
        secrets = given.get("secrets")
        execution = Execution(
            agent_id=call.agent_id,
            manifest=call.manifest,
            runtime=str(given["runtime"]),
            code=str(given["code"]),
            stdin=str(given.get("stdin", "")),
            env={str(name): str(value) for name, value in secrets.items()} if isinstance(secrets, Mapping) else {},
            timeout_s=(timeout_ms if isinstance(timeout_ms, int) else DEFAULT_TIMEOUT_MS) / 1000,
        )
        try:
            result = await self._sandbox.execute(execution)
        except Unavailable as error:
            if error.code != "runtime_missing":
                raise
            return failed_with(error)
        output: dict[str, object] = {
            "stdout": result.stdout,
            "stderr": result.stderr,
            "exit_code": result.exit_code,
        }
        if result.truncated:
            output["truncated"] = True
        if result.timed_out:
            return ToolReply(status="error", output={"error": "timeout", "code": "timeout", **output})
        return ToolReply(status="success", output=output)
