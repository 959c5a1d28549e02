"""Installed agents."""

from dataclasses import replace

import pytest

from borough.core.errors import NotFound
from borough.governance.ports.register import AgentStore, InstalledAgent
from tests.contracts.governance_kit import MANIFEST, NOON, House

pytestmark = pytest.mark.anyio
READER = InstalledAgent(
    name="reader", version="1.2.3", manifest_yaml=MANIFEST, install_dir="/srv/reader", installed_at=NOON
)


async def test_the_newest_of_a_name_is_kept_and_listed_by_name(house: House) -> None:
    store: AgentStore = house.stores.agent_store
    newer, other = replace(READER, version="2.0.0"), replace(READER, name="archivist")
    for each in (READER, other, newer):
        await store.install(each)
    store = (await house.reopen()).agent_store
    assert await store.all() == (other, newer)
    assert await store.get("reader") == newer


async def test_what_was_removed_is_not_found(house: House) -> None:
    store: AgentStore = house.stores.agent_store
    await store.install(READER)
    await store.remove("reader")
    for attempt in (store.get("reader"), store.remove("reader")):
        with pytest.raises(NotFound) as refused:
            await attempt
        assert refused.value.code == "agent_not_installed"
