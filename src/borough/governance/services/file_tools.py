"""The file tools, on agents' workspaces."""

import base64
import mimetypes
from collections.abc import Awaitable, Callable, Mapping

from borough.core.clock import rfc3339
from borough.core.errors import Conflict, Forbidden, NotFound
from borough.governance.ports.tools import ToolCall, ToolReply
from borough.governance.ports.workspaces import Files
from borough.governance.services.tool_failures import failed, failed_with

MOST_READ_BYTES = 1_048_576
MOST_NAMES = 10_000
_TEXTS = {"file_not_found": "file not found", "is_a_directory": "is a directory", "disk_full": "disk full"}
_LISTING_TEXTS = {"file_not_found": "not found", "not_a_directory": "not a directory"}


class FileTools:
    """``fs.read``, ``fs.write``, ``fs.list``, ``fs.delete``."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def handlers(self) -> Mapping[str, Callable[[ToolCall], Awaitable[ToolReply]]]:
        """Return what runs each tool."""
        return {
            "fs.read": _told("fs.read", self._read),
            "fs.write": _told("fs.write", self._write),
            "fs.list": _told("fs.read", self._list, _LISTING_TEXTS),
            "fs.delete": _told("fs.write", self._delete),
        }

    async def _read(self, call: ToolCall, path: str) -> ToolReply:
        read = await self._files.read(call.agent_id, path, limit=MOST_READ_BYTES)
        truncated = read.size > len(read.content)
        output: dict[str, object] = {
            "size": read.size,
            "mime": mimetypes.guess_type(path, strict=False)[0] or "application/octet-stream",
        }
        if call.arguments.get("encoding") == "base64":
            output["content"] = base64.b64encode(read.content).decode()
        else:
            try:
                output["content"] = _text(read.content, truncated=truncated)
            except UnicodeDecodeError:
                return failed("not utf-8", "not_utf8")
        if truncated:
            output["truncated"] = True
        return ToolReply(status="success", output=output)

    async def _write(self, call: ToolCall, path: str) -> ToolReply:
        content = str(call.arguments["content"]).encode()
        append = call.arguments.get("append") is True
        written = await self._files.write(call.agent_id, path, content, append=append)
        return ToolReply(status="success", output={"written": written})

    async def _list(self, call: ToolCall, path: str) -> ToolReply:
        glob = call.arguments.get("glob")
        names = await self._files.listing(
            call.agent_id, path, glob=None if glob is None else str(glob), limit=MOST_NAMES
        )
        output = [
            {
                "name": entry.name,
                "path": entry.path,
                "is_dir": entry.is_dir,
                "size": entry.size,
                "modified": rfc3339(entry.modified),
            }
            for entry in names
        ]
        return ToolReply(status="success", output=output)

    async def _delete(self, call: ToolCall, path: str) -> ToolReply:
        return ToolReply(status="success", output={"deleted": await self._files.delete(call.agent_id, path)})


def _told(
    capability: str,
    handler: Callable[[ToolCall, str], Awaitable[ToolReply]],
    texts: Mapping[str, str] | None = None,
) -> Callable[[ToolCall], Awaitable[ToolReply]]:
    """Return ``handler`` with the ends that its port may come to, in the words of the reference."""
    words = _TEXTS | dict(texts or {})

    async def handle(call: ToolCall) -> ToolReply:
        path = str(call.arguments["path"])
        try:
            return await handler(call, path)
        except NotFound as error:
            if error.code != "file_not_found":
                raise
            return failed_with(error, words[error.code])
        except Conflict as error:
            return failed_with(error, words.get(error.code))
        except Forbidden as error:
            raise Forbidden(
                f"access denied: {capability}:{path}", code="denied", reason=error.reason or error.message
            ) from None

    return handle


def _text(content: bytes, *, truncated: bool) -> str:
    if not truncated:
        return content.decode()
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        # The cut may have gone through a character of up to four bytes.
        if error.start < len(content) - 3:
            raise
        return content[: error.start].decode()
