"""The results on a page of DuckDuckGo Lite."""

from collections.abc import Mapping
from html.parser import HTMLParser
from urllib.parse import parse_qs, urlsplit

from borough.core.errors import Unavailable

MOST_RESULTS = 50
_NOTHING_FOUND = "no results"


def read_results(page: str) -> tuple[Mapping[str, str], ...]:
    """Return what was found, each with ``title``, ``link`` and ``snippet``; nothing found is an empty tuple.

    Raises:
        Unavailable: it is not such a page (``parse_error``).
    """
    reader = _Reader()
    reader.feed(page)
    reader.close()
    found = tuple(one for one in reader.results if one["link"])
    if not found and not (reader.is_search_page and _NOTHING_FOUND in page.lower()):
        raise Unavailable(
            "parse error: the search page is not as expected",
            code="parse_error",
            reason="the search service changed its page, or asks whether a human is there",
            resolution="try again later, or fetch a known address",
        )
    return found[:MOST_RESULTS]


class _Reader(HTMLParser):
    """Collects links of class ``result-link`` and the cells of class ``result-snippet`` that follow them."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.results: list[dict[str, str]] = []
        self.is_search_page = False
        self._into: str | None = None
        self._until = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        classes = (given.get("class") or "").split()
        if tag == "input" and given.get("name") == "q":
            self.is_search_page = True
        if tag == "a" and "result-link" in classes:
            self.results.append({"title": "", "link": _link(given.get("href") or ""), "snippet": ""})
            self._into, self._until = "title", tag
        elif tag == "td" and "result-snippet" in classes and self.results:
            self._into, self._until = "snippet", tag

    def handle_endtag(self, tag: str) -> None:
        if self._into and tag == self._until:
            self.results[-1][self._into] = " ".join(self.results[-1][self._into].split())
            self._into = None

    def handle_data(self, data: str) -> None:
        if self._into:
            self.results[-1][self._into] += data


def _link(href: str) -> str:
    """Return where a result leads, which the service wraps in an address of its own."""
    try:
        parts = urlsplit(href)
        wrapped = parse_qs(parts.query).get("uddg")
        link = wrapped[0] if wrapped else href
        return link if urlsplit(link).scheme in ("http", "https") else ""
    except ValueError:
        return ""
