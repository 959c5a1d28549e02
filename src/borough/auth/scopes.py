"""Scopes: what a principal may do. ``admin`` covers every scope; no other scope covers another."""

from enum import StrEnum


class Scope(StrEnum):
    """The words of the town's reference page."""

    READ = "town.read"
    WRITE = "town.write"
    MANAGE = "agent.manage"
    ADMIN = "admin"


ALL_SCOPES: frozenset[Scope] = frozenset(Scope)


def covers(held: frozenset[Scope], needed: Scope) -> bool:
    """Tell whether ``held`` allows what ``needed`` stands for."""
    return needed in held or Scope.ADMIN in held
