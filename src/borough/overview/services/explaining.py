"""Finding whatever a word means, and saying why it stands where it stands."""

import asyncio
from collections.abc import Collection, Sequence
from typing import Final

import structlog

from borough.core.errors import BoroughError, NotFound
from borough.overview.explaining import Explanation, Match, the_one
from borough.overview.occurrences import Context, Subject
from borough.overview.ports import Things

log = structlog.get_logger(__name__)

EACH: Final = 50
"""How many things of a kind are looked at for one word."""


class ExplainService:
    """Knows every kind of thing."""

    def __init__(self, things: Sequence[Things]) -> None:
        self._things = tuple(things)

    async def explain(self, word: str, contexts: Collection[Context]) -> Explanation:
        """Return why the thing that ``word`` names stands where it stands.

        Raises:
            NotFound: it names nothing (``thing_not_found``).
            Conflict: it may mean several things (``ambiguous``); they are named.
            Unavailable: it is known to nobody who could be asked, and not all could (the code says why).
        """
        things, match = await self._meant(word, contexts)
        return await things.explain(match.subject)

    async def the_one(self, word: str, contexts: Collection[Context]) -> Subject:
        """Return the thing that ``word`` names; raises as ``explain``."""
        return (await self._meant(word, contexts))[1].subject

    async def search(self, word: str, contexts: Collection[Context], *, limit: int) -> Sequence[Match]:
        """Return things whose id or name is ``word`` or begins with it: exact ones first, then by kind and name.

        What cannot be read now has nothing to offer.
        """
        found, _ = await self._found(word, contexts, limit=limit)
        order = {things.kind: number for number, things in enumerate(self._things)}
        matches = [match for _, match in found]
        matches.sort(
            key=lambda match: (not match.exact, order[match.subject.kind], match.subject.name or match.subject.id)
        )
        return matches[:limit]

    async def _meant(self, word: str, contexts: Collection[Context]) -> tuple[Things, Match]:
        found, failed = await self._found(word, contexts, limit=EACH)
        try:
            match = the_one(word, [match for _, match in found])
        except NotFound:
            if failed is not None:
                raise failed from None
            raise
        return next(things for things, each in found if each is match), match

    async def _found(
        self, word: str, contexts: Collection[Context], *, limit: int
    ) -> tuple[list[tuple[Things, Match]], BoroughError | None]:
        """Return what everybody finds, each thing once, and why somebody could not be asked."""
        asked = [things for things in self._things if things.context in contexts]
        answers = await asyncio.gather(*(things.find(word, limit=limit) for things in asked), return_exceptions=True)
        found: dict[tuple[str, str], tuple[Things, Match]] = {}
        failed: BoroughError | None = None
        for things, answer in zip(asked, answers, strict=True):
            if isinstance(answer, BoroughError):
                log.warning("things.not_read", kind=things.kind, error=answer.message)
                failed = answer
            elif isinstance(answer, BaseException):
                raise answer
            else:
                for match in answer:
                    # An agent may be known to the town and to governance: it is one, and the first tells of it.
                    found.setdefault((match.subject.kind, match.subject.id), (things, match))
        return list(found.values()), failed
