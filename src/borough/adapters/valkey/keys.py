"""Keys: one prefix a town. What comes after it is named in one place too, ``functions/common.lua``."""

from borough.town.names import town_name


def prefix(town: str, *, cluster: bool = False) -> str:
    """Return what every key of ``town`` begins with.

    A cluster keeps together what has the same text between braces: with it, functions may touch all keys of a town.
    """
    name = town_name(town)
    return f"tt:{{{name}}}:" if cluster else f"tt:{name}:"
