"""The port ``Models``: one endpoint, spoken to with patience and limits. Its key is in one header and nowhere else."""

import asyncio
import io
import ipaddress
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from borough.adapters.models.protocol import ChatAnswer, EmbeddingAnswer, chat_body, chat_reply, embedding_reply
from borough.core.errors import BoroughError, Forbidden, Invalid, Unavailable
from borough.governance.hosts import is_local
from borough.governance.models import BUILT_IN, Model
from borough.governance.ports.outside import ModelReply

DEFAULT_BASE_URL = "https://openrouter.ai/api/v1"
KEY_VARIABLE = "OPENROUTER_API_KEY"
_LARGEST_ANSWER_BYTES = 32 * 1_048_576
_CHUNK_BYTES = 65_536
_REASON_LETTERS = 300
_OK, _TOO_MANY, _REQUEST_TIMEOUT = 200, 429, 408
_KEY_REFUSED = frozenset({401, 403})
_AGAIN = frozenset({_TOO_MANY, 500, 502, 503, 504, 529})

Answer = TypeVar("Answer", ChatAnswer, EmbeddingAnswer)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEndpoint:
    """Where models are and how long to wait for them."""

    base_url: str = DEFAULT_BASE_URL
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 120.0
    """For a call with all its attempts."""
    attempts: int = 3
    first_wait_s: float = 0.5
    """Before the second attempt; doubled for each further one."""
    longest_wait_s: float = 20.0
    """An endpoint that asks to wait longer is not waited for."""


class OpenAiModels:
    """Models behind an OpenAI-compatible endpoint. Use it from one event loop; ``close`` it before the loop ends."""

    def __init__(self, endpoint: ModelEndpoint, *, registry: Sequence[Model] = BUILT_IN) -> None:
        """Raises ``Invalid`` (``insecure_model_endpoint``) when the key would leave this network in the clear."""
        self._endpoint = endpoint
        self._registry = tuple(registry)
        self._host = _checked_host(endpoint)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def complete(self, *, model: str, prompt: str, system: str | None) -> ModelReply:
        """Answer a prompt, as the port says."""
        instruction = ({"role": "system", "content": system},) if system else ()
        messages = (*instruction, {"role": "user", "content": prompt})
        reply = await self.chat(model=model, messages=messages, tools=(), tool_choice=None)
        return ModelReply(
            output={"text": reply.output.get("text", "")},
            model=reply.model,
            input_tokens=reply.input_tokens,
            output_tokens=reply.output_tokens,
            cost_micros=reply.cost_micros,
        )

    async def chat(
        self,
        *,
        model: str,
        messages: tuple[Mapping[str, object], ...],
        tools: tuple[Mapping[str, object], ...],
        tool_choice: str | None,
    ) -> ModelReply:
        """Continue a conversation, as the port says."""
        body = chat_body(model, messages, tools, tool_choice)
        if self._host == "openrouter.ai":
            body["usage"] = {"include": True}  # others refuse what they do not know
        answer = await self._ask("chat/completions", body, ChatAnswer)
        try:
            return chat_reply(answer, body, self._registry)
        except ValueError as error:
            raise _not_understood(str(error)) from None

    async def embed(self, *, model: str, inputs: tuple[str, ...]) -> ModelReply:
        """Turn texts into vectors, as the port says."""
        body: dict[str, object] = {"model": model, "input": list(inputs)}
        answer = await self._ask("embeddings", body, EmbeddingAnswer)
        try:
            return embedding_reply(answer, body, len(inputs), self._registry)
        except ValueError as error:
            raise _not_understood(str(error)) from None

    async def _ask(self, path: str, body: Mapping[str, object], kind: type[Answer]) -> Answer:
        self._check_configured()
        try:
            async with asyncio.timeout(self._endpoint.timeout_s):
                content = await self._insist(path, msgspec.json.encode(body))
        except TimeoutError:
            raise _timed_out(f"no whole answer within {self._endpoint.timeout_s:g} s") from None
        try:
            return msgspec.json.decode(content, type=kind)
        except msgspec.MsgspecError as error:
            raise _not_understood(self._scrubbed(str(error))) from None

    async def _insist(self, path: str, body: bytes) -> bytes:
        wait_s = self._endpoint.first_wait_s
        for left in range(self._endpoint.attempts - 1, -1, -1):
            failure, asked_s = await self._attempt(path, body)
            if isinstance(failure, bytes):
                return failure
            pause_s = wait_s * random.uniform(0.75, 1.25) if asked_s is None else asked_s  # noqa: S311 - no secret
            if asked_s == _NEVER or not left or pause_s > self._endpoint.longest_wait_s:
                raise failure
            await asyncio.sleep(pause_s)
            wait_s *= 2
        raise _unavailable("no attempt is allowed", "set attempts to at least 1")

    async def _attempt(self, path: str, body: bytes) -> tuple[bytes | BoroughError, float | None]:
        """Return the answer; or what failed, and after how long to try again (``None``: as we like)."""
        url = f"{self._endpoint.base_url.rstrip('/')}/{path}"
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._endpoint.api_key:
            headers["Authorization"] = f"Bearer {self._endpoint.api_key}"
        try:
            async with self._opened().post(
                url, data=io.BytesIO(body), headers=headers, allow_redirects=False
            ) as response:
                content = await _content(response)
                status, retry_after = response.status, response.headers.get("Retry-After")
        except aiohttp.ClientConnectorError as error:
            # Nothing was sent: this may be tried again.
            return _unavailable(f"{self._host} cannot be reached: {error.strerror or error.os_error}"), None
        except (aiohttp.ClientError, OSError) as error:
            # It may have been answered, and paid for, already.
            return _unavailable(self._scrubbed(f"{self._host}: {type(error).__name__}: {error}")), _NEVER
        told = _error_in(content)
        status = told.status if status == _OK and told is not None else status
        if status == _OK:
            return content, None
        reason = self._scrubbed(f"{self._host} answered {status}" + (f": {told.message}" if told else ""))
        return _failure(status, reason), _pause(retry_after) if status in _AGAIN else _NEVER

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
                trust_env=False,
            )
        return self._session

    def _check_configured(self) -> None:
        if not self._endpoint.api_key and not _is_near(self._host):
            raise Unavailable(
                "no key for language models is set",
                code="model_not_configured",
                reason=f"{self._host} wants a key",
                resolution=f"set {KEY_VARIABLE} for the daemon, or a base URL of a model server on this machine",
            )

    def _scrubbed(self, text: str) -> str:
        key = self._endpoint.api_key
        return " ".join((text.replace(key, "[key]") if key else text).split())[:_REASON_LETTERS]


_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class _Told:
    message: str
    status: int


class _ErrorBody(msgspec.Struct):
    error: dict[str, object] | str | None = None


def _error_in(content: bytes) -> _Told | None:
    """Return the error that a body tells of; some endpoints answer 200 with one."""
    try:
        error = msgspec.json.decode(content, type=_ErrorBody).error
    except msgspec.MsgspecError:
        return None
    if not error:
        return None
    if isinstance(error, str):
        return _Told(error, 502)
    code = error.get("code")
    status = code if isinstance(code, int) and 400 <= code < 600 else 502  # noqa: PLR2004 - statuses of errors
    return _Told(str(error.get("message", "")), status)


async def _content(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        body += chunk
        if len(body) > _LARGEST_ANSWER_BYTES:
            raise aiohttp.ClientPayloadError("the answer is too large")
    return bytes(body)


def _pause(retry_after: str | None) -> float | None:
    """Return the seconds that the endpoint asks to wait; a date is as good as nothing said."""
    if retry_after is None or not retry_after.strip().isdigit():
        return None
    return float(retry_after)


def _failure(status: int, reason: str) -> BoroughError:
    if status in _KEY_REFUSED:
        return Forbidden(
            "the model endpoint refuses the key",
            code="model_key_refused",
            reason=reason,
            resolution=f"check {KEY_VARIABLE} and that the key may use this model",
        )
    if status == _TOO_MANY:
        return Unavailable(
            "the model endpoint has had too many requests",
            code="model_rate_limited",
            reason=reason,
            resolution="try again later, or raise the limit at the provider",
        )
    if status == _REQUEST_TIMEOUT:
        return _timed_out(reason)
    if 400 <= status < 500 and status != 402:  # noqa: PLR2004 - the request's own faults; 402: the account is empty
        return Invalid(
            "the model endpoint does not accept the request",
            code="model_refused",
            reason=reason,
            resolution="check the model's name and the messages",
        )
    return _unavailable(reason)


def _unavailable(reason: str, resolution: str = "try again later, or choose another model") -> Unavailable:
    return Unavailable("the model is not available", code="model_unavailable", reason=reason, resolution=resolution)


def _timed_out(reason: str) -> Unavailable:
    return Unavailable(
        "the model did not answer in time",
        code="model_timeout",
        reason=reason,
        resolution="ask for less at once, or raise the timeout",
    )


def _not_understood(reason: str) -> Unavailable:
    return _unavailable(f"its answer cannot be read: {reason}", "check that the base URL is of an OpenAI-like API")


def _checked_host(endpoint: ModelEndpoint) -> str:
    try:
        parts = urlsplit(endpoint.base_url)
        host = parts.hostname or ""
    except ValueError:
        parts, host = urlsplit(""), ""
    secure = parts.scheme == "https" or (parts.scheme == "http" and (_is_near(host) or not endpoint.api_key))
    if not host or not secure or "@" in parts.netloc:
        raise Invalid(
            "the base URL of the models cannot be used",
            code="insecure_model_endpoint",
            reason="a key goes over https only, or stays on this machine and its own network",
            resolution="write it as https://host/path, without user name",
        )
    return host


def _is_near(host: str) -> bool:
    try:
        return is_local(ipaddress.ip_address(host))
    except ValueError:
        return host == "localhost"
