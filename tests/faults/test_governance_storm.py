"""Two hundred callers at once, and the daemon is killed among them: what was acknowledged is in the ledger, concluded.

Ten seconds of it by default, ``BOROUGH_SOAK_S`` of it in ``make soak``; at least two kills.
"""

import asyncio
import json
import os
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.daemon import RunningDaemon, start_daemon

pytestmark = pytest.mark.anyio
STORM_S = float(os.environ.get("BOROUGH_SOAK_S", "10"))
CALLERS = 200
LEAST_ROUNDS = 2
MOST_ROUNDS = 10
"""At most this many until a kill has found a call under way, which on a machine that others use too not each does."""


@dataclass(kw_only=True)
class Heard:
    """What callers know of their calls, by the word that each sends along."""

    sent: set[str] = field(default_factory=set)
    acknowledged: dict[str, str] = field(default_factory=dict)
    """Word → the request's id that the answer named."""


async def storm(daemon: RunningDaemon, agent_id: str, token: str, name: str, heard: Heard, *, kill_after: int) -> None:
    """Call from everywhere until nobody answers; the daemon is killed after ``kill_after`` answers."""
    headers = {"Authorization": f"Bearer {token}"}
    target = f"{daemon.url}/agents/{agent_id}/tools/echo"
    before = len(heard.acknowledged)
    killed = asyncio.Event()

    async def caller(number: int, session: aiohttp.ClientSession) -> None:
        count = 0
        while not killed.is_set():
            word, count = f"{name}-{number}-{count}", count + 1
            heard.sent.add(word)
            try:
                async with session.post(target, json={"word": word}) as answer:
                    told = await answer.json()
            except (aiohttp.ClientError, ConnectionError, TimeoutError):
                return
            assert (answer.status, told["output"]) == (200, {"word": word}), told
            heard.acknowledged[word] = told["request_id"]
            if len(heard.acknowledged) - before >= kill_after and not killed.is_set():
                killed.set()
                daemon.process.kill()

    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(headers=headers, connector=connector, timeout=timeout) as session:
        await asyncio.gather(*(caller(number, session) for number in range(CALLERS)))
    await asyncio.to_thread(daemon.process.wait, 10)


def recorded(daemon: RunningDaemon) -> list[dict[str, Any]]:
    """Return every entry, in order, from the ledger's own export."""
    lines = daemon.request("GET", "/audit/export").body.splitlines()
    return [json.loads(line[line.index(b"{") :]) for line in lines if b" {" in line]


def verify(daemon: RunningDaemon) -> None:
    """Have the daemon check the whole chain, part by part."""
    first: int | None = 0
    while first is not None:
        told = daemon.ok("GET", f"/audit/verify?from={first}")
        assert (told["ok"], told["first_bad"]) == (True, None)
        first = told["next_seq"]


def check(entries: list[dict[str, Any]], heard: Heard, agent_id: str) -> int:
    """Check that callers and ledger agree; return how many calls ended unknown."""
    assert [entry["seq"] for entry in entries] == list(range(len(entries)))
    calls = [entry for entry in entries if entry["action"] == "ToolInvoke"]
    intents = {entry["id"]: entry for entry in calls if entry["kind"] == "intent"}
    outcomes: dict[str, list[dict[str, Any]]] = {intent_id: [] for intent_id in intents}
    for entry in calls:
        if entry["kind"] == "outcome":
            outcomes[entry["intent_id"]].append(entry)
    assert [told for told in outcomes.values() if len(told) != 1] == [], "each intent has one outcome"

    by_word: dict[str, tuple[dict[str, Any], str]] = {}
    for intent_id, intent in intents.items():
        word = json.loads(intent["detail"].removeprefix("echo(").removesuffix(")"))["word"]
        assert word not in by_word, "no call is made twice"
        by_word[word] = (intent, outcomes[intent_id][0]["outcome"])
    assert by_word.keys() <= heard.sent
    for word, request_id in heard.acknowledged.items():
        intent, outcome = by_word[word]
        assert (intent["agent_id"], intent["request_id"], outcome) == (agent_id, request_id, "success")
    # A call whose answer was lost on its way may well have been made: then the ledger says so.
    unheard = [outcome for word, (_, outcome) in by_word.items() if word not in heard.acknowledged]
    assert set(unheard) <= {"success", "unknown"}
    return unheard.count("unknown")


async def test_what_was_acknowledged_is_recorded_and_the_rest_is_absent_or_unknown(tmp_path: Path) -> None:
    daemon = start_daemon(tmp_path)
    heard, chance, unknown = Heard(), random.Random(5), 0
    rounds, until = 0, time.monotonic() + STORM_S
    try:
        agent_id = daemon.spawn("stormy", "tool.invoke:echo")
        token = daemon.key("stormy", agent_id)
        while rounds < LEAST_ROUNDS or time.monotonic() < until or (unknown == 0 and rounds < MOST_ROUNDS):
            rounds += 1
            await storm(daemon, agent_id, token, f"r{rounds}", heard, kill_after=chance.randint(CALLERS, 4 * CALLERS))
            daemon = await asyncio.to_thread(daemon.restarted)
            unknown = check(recorded(daemon), heard, agent_id)
            verify(daemon)
            found = daemon.ok("GET", f"/agents/{agent_id}")
            assert (found["status"], found["state"]) == ("running", "Plan")
            assert found["spent"]["calls"] >= len(heard.acknowledged), "what was used counts against the budget"
        starts = [entry for entry in daemon.entries(action="DaemonStart", limit=1000) if entry["outcome"] == "success"]
        assert len(starts) == rounds + 1
    finally:
        assert daemon.stop() == 0, daemon.log
    assert len(heard.acknowledged) >= LEAST_ROUNDS * CALLERS
    assert unknown > 0, "a kill in the middle of two hundred calls finds some of them under way"
