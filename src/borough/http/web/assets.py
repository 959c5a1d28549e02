"""The dashboard's files as they were built: read once, served as they are or packed, never changed under their name."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.responses import Response

from borough.core.errors import NotFound
from borough.http.operations import Answer, Call, open_to_all

IMMUTABLE = "public, max-age=31536000, immutable"
"""Names hold a digest of what is in them."""
REVALIDATE = "no-cache"
_TYPES: Mapping[str, str] = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
_ENCODINGS: Mapping[str, str] = {"br": "br", "gzip": "gz"}
"""Content encoding → what packed files end in; the better one first."""
_NOT_BUILT = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Borough</title>
<meta name="viewport" content="width=device-width,initial-scale=1"></head>
<body><main><h1>The dashboard is not built</h1>
<p>This server runs from sources whose dashboard was not built. In the checkout, run <code>make web</code>, which needs
Node.js or takes it from a package, then load this page again. Everything else works:
<a href="/docs">the API</a>, <code>tt</code>, <code>ash</code> and <code>borough</code>.</p></main></body></html>
"""


@dataclass(frozen=True, slots=True)
class Form:
    """One form of a file: plain or packed."""

    body: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class Asset:
    """A file, by content encoding; ``identity`` is always there."""

    content_type: str
    forms: Mapping[str, Form]

    def answer(self, headers: Mapping[str, str], *, cache_control: str) -> Response:
        """Return the best form for a request, or that it has it already."""
        encoding = chosen(headers.get("accept-encoding", ""), self.forms)
        form = self.forms[encoding]
        told = {"etag": form.etag, "cache-control": cache_control, "vary": "accept-encoding"}
        if form.etag in {tag.strip() for tag in headers.get("if-none-match", "").split(",")}:
            return Response(status_code=304, headers=told)
        if encoding != "identity":
            told["content-encoding"] = encoding
        return Response(form.body, media_type=self.content_type, headers=told)


def chosen(accepted: str, forms: Mapping[str, Form]) -> str:
    """Return the name of the form to send to a client that says ``accepted``."""
    weights: dict[str, float] = {}
    for part in accepted.split(","):
        name, _, rest = part.partition(";")
        weight = rest.strip().removeprefix("q=")
        try:
            weights[name.strip().lower()] = float(weight) if weight else 1.0
        except ValueError:
            continue
    return next((name for name in _ENCODINGS if name in forms and weights.get(name, 0) > 0), "identity")


def built() -> Asset | None:
    """Return the page, or ``None`` where the dashboard was not built."""
    folder = files("borough").joinpath("web", "static")
    page = folder.joinpath("index.html")
    return _asset(page, folder) if page.is_file() else None


@cache
def _assets() -> Mapping[str, Asset]:
    folder = files("borough").joinpath("web", "static", "assets")
    if not folder.is_dir():
        return {}
    named = [item for item in folder.iterdir() if item.is_file() and item.name.rpartition(".")[2] in _TYPES]
    return {item.name: _asset(item, folder) for item in named}


def _asset(item: Traversable, folder: Traversable) -> Asset:
    forms = {"identity": _form(item.read_bytes())}
    for encoding, ending in _ENCODINGS.items():
        packed = folder.joinpath(f"{item.name}.{ending}")
        if packed.is_file():
            forms[encoding] = _form(packed.read_bytes())
    return Asset(content_type=_TYPES[item.name.rpartition(".")[2]], forms=forms)


def _form(body: bytes) -> Form:
    return Form(body=body, etag=f'"{hashlib.sha256(body).hexdigest()[:32]}"')


async def page(call: Call) -> Response:
    found = built()  # read anew: it is small, and may have been built meanwhile
    if found is None:
        return Response(_NOT_BUILT, status_code=503, media_type=_TYPES["html"], headers={"cache-control": REVALIDATE})
    return found.answer(call.headers, cache_control=REVALIDATE)


async def asset(call: Call) -> Response:
    found = _assets().get(call.path["name"])
    if found is None:
        _assets.cache_clear()  # it may have been built meanwhile
        found = _assets().get(call.path["name"])
    if found is None:
        raise NotFound(
            f"the dashboard has no file {call.path['name']!r}", code="asset_not_found", resolution="load the page anew"
        )
    return found.answer(call.headers, cache_control=IMMUTABLE)


OPERATIONS = (
    open_to_all(
        "/",
        page,
        "The dashboard",
        Answer(status=200, body=str, description="the page", content_type=_TYPES["html"]),
        Answer(status=503, body=str, description="a page: it was not built", content_type=_TYPES["html"]),
        tag="page",
    ),
    open_to_all(
        "/assets/{name}",
        asset,
        "A file of the dashboard; its name changes with what is in it",
        Answer(status=200, body=bytes, description="the file", content_type="application/octet-stream"),
        tag="page",
        asset_not_found=404,
    ),
)
