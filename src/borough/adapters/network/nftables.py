"""The firewall: one document in one transaction, and the gap in Docker's that our machines need.

Where Docker finds that the host did not forward, it lets everything drop that is forwarded, and a drop anywhere wins
over every accept. Docker leaves the chain ``DOCKER-USER`` to others; our accept goes there, marked as ours.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from borough.adapters.network import running

_DOCKERS = ("ip", "filter", "DOCKER-USER")


async def apply(document: str) -> None:
    """Make the firewall say what ``document`` says, or leave it as it was; raises ``Unavailable``."""
    await running.must(["nft", "-f", "-"], stdin=document)


async def remove(table: str) -> None:
    """Remove our tables; none there is no error."""
    families = ("ip", "bridge", *(("ip6",) if speaks_ipv6() else ()))
    lines = [f"table {family} {table} {{}}\ndelete table {family} {table}\n" for family in families]
    await apply("".join(lines))


def speaks_ipv6() -> bool:
    """Tell whether this host has IPv6, so that it has to be closed too."""
    return Path("/proc/net/if_inet6").exists()


async def has_table(table: str) -> bool:
    """Tell whether our rules are in force."""
    return (await running.run(["nft", "list", "table", "ip", table])).code == 0


async def let_through(bridge: str, mark: str) -> str | None:
    """Mend what drops our machines' traffic as far as that is ours to do; return what somebody has to know of it."""
    objects = await _filter_table()
    if not _drops(objects):
        return None
    if not any(_chain(each) == "DOCKER-USER" for each in objects):
        return (
            "the chain FORWARD of this host drops what is forwarded, and there is no chain DOCKER-USER to mend it in: "
            f"published ports answer on the host only until an accept for {bridge} is added"
        )
    if not list(_ours(objects, mark)):
        family, table, chain = _DOCKERS
        await apply(
            "".join(
                f'insert rule {family} {table} {chain} {side} "{bridge}" counter accept comment "{mark}"\n'
                for side in ("iifname", "oifname")
            )
        )
    return f"Docker drops what is forwarded; an accept for {bridge} is kept in its chain DOCKER-USER"


async def close_gap(mark: str) -> None:
    """Remove our accept from Docker's chain; none there is no error."""
    family, table, chain = _DOCKERS
    handles = list(_ours(await _filter_table(), mark))
    if handles:
        await apply("".join(f"delete rule {family} {table} {chain} handle {handle}\n" for handle in handles))


async def _filter_table() -> Sequence[dict[str, Any]]:
    finished = await running.run(["nft", "-j", "list", "table", "ip", "filter"])
    if finished.code != 0:
        return []  # there is none: nobody else filters
    found: Sequence[dict[str, Any]] = json.loads(finished.stdout)["nftables"]
    return found


def _drops(objects: Sequence[dict[str, Any]]) -> bool:
    chains = (each["chain"] for each in objects if "chain" in each)
    return any(chain["name"] == "FORWARD" and chain.get("policy") == "drop" for chain in chains)


def _chain(each: dict[str, Any]) -> str | None:
    return each["chain"]["name"] if "chain" in each else None


def _ours(objects: Sequence[dict[str, Any]], mark: str) -> Iterator[int]:
    for each in objects:
        rule = each.get("rule")
        if rule is not None and rule["chain"] == "DOCKER-USER" and rule.get("comment") == mark:
            yield rule["handle"]
