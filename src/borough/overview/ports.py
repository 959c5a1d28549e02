"""What is asked of each context."""

from collections.abc import Sequence
from typing import Protocol

from borough.core.paging import Page, PageRequest
from borough.overview.attention import Kind, Need
from borough.overview.evidence import Gathered
from borough.overview.explaining import Explanation, Match
from borough.overview.occurrences import Context, Occurrence, Subject


class Stream(Protocol):
    """The events of one context, in the order of what happened. Every method raises ``Unavailable`` where they cannot
    be had now.
    """

    @property
    def context(self) -> Context:
        """Whose they are."""

    async def bounds(self) -> tuple[str, str]:
        """Return the positions before the first event that is kept and of the newest."""

    async def after(self, position: str, *, limit: int) -> tuple[Sequence[Occurrence], str]:
        """Return what happened after a position, oldest first, and up to where was looked: the same position where
        there is nothing more.
        """

    async def newest(self, *, limit: int) -> Sequence[Occurrence]:
        """Return what happened last, oldest first."""

    async def comes(self, *, after: str) -> None:
        """Return as soon as there is something after a position; sooner does no harm."""


class Needs(Protocol):
    """What of one kind needs a person."""

    @property
    def context(self) -> Context:
        """Who can tell."""

    @property
    def kind(self) -> Kind:
        """What kind."""

    async def page(self, page: PageRequest) -> Page[Need]:
        """Return some, those that have waited longest first. A page may be short, or empty, and have a next one.

        Raises:
            Unavailable: they cannot be read now.
        """


class Things(Protocol):
    """Things of one kind that people name: how they are found, and why they stand where they stand."""

    @property
    def context(self) -> Context:
        """Whose they are."""

    @property
    def kind(self) -> str:
        """What they are."""

    async def find(self, word: str, *, limit: int) -> Sequence[Match]:
        """Return those whose id or name is ``word`` or begins with it, exact ones first; bounded, whatever there is.

        Raises:
            Unavailable: they cannot be read now.
        """

    async def explain(self, subject: Subject) -> Explanation:
        """Return why one stands where it stands; raises ``NotFound`` when it went meanwhile."""


class EvidenceOf(Protocol):
    """What there is to show of one kind of thing, beside what the ledger says."""

    @property
    def kind(self) -> str:
        """What they are."""

    async def gather(self, subject: Subject) -> Gathered:
        """Return it; raises ``NotFound`` when the thing went meanwhile."""
