"""Trust between a controller and its hosts, over real sockets and TLS: who is believed, and what is said to others."""

import asyncio
import hashlib
import re
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from borough.adapters.host.certificate import host_certificate
from borough.adapters.host.door import fresh_token, invitation
from borough.adapters.sql.engine import Database
from borough.adapters.sql.fleet.access import host_trust
from borough.adapters.sql.fleet.tables import CONTROLLER
from borough.config.fleet import HostSettings, Listening, host_settings
from borough.core.clock import utc_now
from borough.core.errors import Invalid, NotFound
from borough.fleet.trust import JoinToken, parse_join_token
from tests.conftest import eventually
from tests.services.fleet_house import (
    RunningController,
    RunningHost,
    running_controller,
    running_host,
    settings_of_controller,
    settings_of_host,
    with_key,
)
from tests.services.man_in_the_middle import Listener, man_in_the_middle

pytestmark = pytest.mark.anyio
FLEET_KEY = "key-of-the-fleet"
VM = {"image": "base", "engine": "bubblewrap", "cpu": 1, "mem": 64, "disk": 1000}


def joined_only(folder: Path, host_id: str = "h1", *, port: int = 0, api_key: str | None = None) -> HostSettings:
    listening = Listening(host="127.0.0.1", port=port, join_only=True, tls=True, api_key=api_key)
    return settings_of_host(folder, host_id=host_id, listening=listening)


def token_of(folder: Path) -> str:
    return (folder / "data" / "join.token").read_text().strip()


def port_of(addr: str) -> int:
    return int(addr.rpartition(":")[2])


async def spoken_with(listener: Listener, *, times: int) -> None:
    """Return once the listener has noticed that many connections: whoever refuses it knows so before."""

    async def noticed() -> bool:
        return listener.connections >= times

    await eventually(noticed)


@dataclass(slots=True)
class Fleet:
    controller: RunningController
    folder: Path

    async def add(self, addr: str, token: str | None = None) -> tuple[int, Any]:
        body = {"addr": addr} if token is None else {"addr": addr, "token": token}
        return await self.controller.ask("POST", "/api/hosts", json=body)

    async def joined(self, host: RunningHost, name: str = "h1") -> None:
        status, answer = await self.add(host.addr, token_of(self.folder / name))
        assert status == 201, answer

    async def refused(self, status: int, code: str, addr: str, token: str | None = None) -> Any:
        found, answer = await self.add(addr, token)
        assert (found, answer.get("code")) == (status, code), answer
        assert answer["resolution"]
        return answer

    async def hear(self) -> dict[str, Any]:
        """Let the controller listen to its hosts once, and return the first."""
        await self.controller.opened.services.hosts.listen()
        (host, *_) = (await self.controller.ask("GET", "/api/hosts"))[1]["data"]
        found: dict[str, Any] = host
        return found


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    settings = settings_of_controller(tmp_path, listening=with_key(FLEET_KEY))
    async with running_controller(settings) as controller:
        yield Fleet(controller, tmp_path)


async def test_a_host_is_joined_by_its_token_and_spoken_to_over_tls_with_a_credential_of_its_own(
    fleet: Fleet, tmp_path: Path
) -> None:
    async with running_host(joined_only(tmp_path / "h1")) as host:
        token = token_of(tmp_path / "h1")
        await fleet.joined(host)
        status, made = await fleet.controller.ask("POST", "/api/envs", json={"id": "e1", "ssh_keys": [], "vms": [VM]})
        assert status == 201, made
        assert (await fleet.hear())["state"] == "online"
        data = tmp_path / "h1" / "data"
        assert (data / "tls.pem").stat().st_mode & 0o777 == 0o600
        assert b"bhc_" not in b"".join(path.read_bytes() for path in data.iterdir() if path.is_file())
        seen = ssl.PEM_cert_to_DER_cert(
            await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port_of(host.addr)))
        )
        assert parse_join_token(token).fingerprint == hashlib.sha256(seen).hexdigest()
        assert token_of(tmp_path / "h1") != token
        async with aiohttp.ClientSession() as plain:
            with pytest.raises(aiohttp.ClientError):
                await plain.get(f"http://{host.addr}/health")
            for key in (FLEET_KEY, token):
                headers = {"authorization": f"Bearer {key}"}
                async with plain.get(f"https://{host.addr}/api/vms", headers=headers, ssl=False) as answer:
                    assert answer.status == 401


async def test_what_was_agreed_outlives_both_programs(tmp_path: Path) -> None:
    settings, port = settings_of_controller(tmp_path, listening=with_key(FLEET_KEY)), 0
    for first in (True, False):
        async with running_host(joined_only(tmp_path / "h1", port=port)) as host, running_controller(settings) as one:
            port = port_of(host.addr)
            fleet = Fleet(one, tmp_path)
            if first:
                await fleet.joined(host)
            else:
                assert (await fleet.add(host.addr))[0] == 201, "without a token it is registered as before"
            assert (await fleet.hear()).get("error") is None
    database = await Database.open(tmp_path / "ctl" / "ctl.db", CONTROLLER)
    try:
        trusted = await host_trust(database)
    finally:
        await database.close()
    assert list(trusted) == [("h1", host.addr)]
    assert trusted["h1", host.addr].fingerprint == host_certificate(tmp_path / "h1" / "data").fingerprint
    assert trusted["h1", host.addr].credential not in repr(trusted)


async def test_a_man_in_the_middle_of_the_first_contact_hears_no_token(fleet: Fleet, tmp_path: Path) -> None:
    async with running_host(joined_only(tmp_path / "h1")) as host:
        async with man_in_the_middle(_private(tmp_path / "mallory"), beyond=host.addr) as middle:
            answer = await fleet.refused(502, "host_certificate_changed", middle.addr, token_of(tmp_path / "h1"))
            await spoken_with(middle, times=1)
        assert middle.heard == b""
        assert host_certificate(tmp_path / "mallory").fingerprint in answer["reason"]
        await fleet.joined(host)


async def test_a_man_in_the_middle_of_a_joined_host_hears_no_credential(fleet: Fleet, tmp_path: Path) -> None:
    async with running_host(joined_only(tmp_path / "h1")) as host:
        await fleet.joined(host)
    port = port_of(host.addr)
    async with (
        running_host(joined_only(tmp_path / "h1")) as elsewhere,
        man_in_the_middle(_private(tmp_path / "mallory"), port=port, beyond=elsewhere.addr) as middle,
    ):
        assert "is not the host that was joined there" in (await fleet.hear())["error"]
        assert "is not the host that was joined there" in (await fleet.add(host.addr))[1]["error"]
        await spoken_with(middle, times=2)
        assert middle.heard == b""
    async with running_host(joined_only(tmp_path / "h1", port=port)):
        assert (await fleet.hear()).get("error") is None, "the host itself is believed as ever"


async def test_who_speaks_plain_at_the_address_of_a_joined_host_hears_no_secret(fleet: Fleet, tmp_path: Path) -> None:
    async with running_host(joined_only(tmp_path / "h1")) as host:
        await fleet.joined(host)
        token = token_of(tmp_path / "h1")
    async with man_in_the_middle(None, port=port_of(host.addr)) as impostor:
        assert "does not speak TLS" in (await fleet.hear())["error"]
        await fleet.refused(502, "host_tls_failed", host.addr)
        await fleet.refused(502, "host_tls_failed", host.addr, token)
        for said in (b"bhc_", b"bjt_", b"Bearer", FLEET_KEY.encode()):
            assert said not in impostor.heard
        assert impostor.connections == 3


async def test_another_host_with_a_token_of_its_own_cannot_take_a_known_id(fleet: Fleet, tmp_path: Path) -> None:
    async with running_host(joined_only(tmp_path / "h1")) as host:
        await fleet.joined(host)
        async with running_host(joined_only(tmp_path / "other", "h1")) as impostor:
            await fleet.refused(409, "host_bound", impostor.addr, token_of(tmp_path / "other"))
        found = await fleet.hear()
        assert (found["addr"], found.get("error")) == (host.addr, None)


async def test_a_host_with_a_new_certificate_is_refused_until_it_is_joined_anew_and_keeps_its_machines(
    fleet: Fleet, tmp_path: Path
) -> None:
    async with running_host(joined_only(tmp_path / "h1"), keep=True) as host:
        await fleet.joined(host)
        body = {"id": "e1", "ssh_keys": [], "vms": [VM]}
        assert (await fleet.controller.ask("POST", "/api/envs", json=body))[0] == 201
    (tmp_path / "h1" / "data" / "tls.pem").unlink()
    async with running_host(joined_only(tmp_path / "h1", port=port_of(host.addr))) as changed:
        assert parse_join_token(token_of(tmp_path / "h1")).fingerprint == _fingerprint(changed)
        told = (await fleet.hear())["error"]
        assert "is not the host that was joined there" in told
        assert "tt-agent --invite" in told
        answer = await fleet.refused(502, "host_certificate_changed", host.addr)
        assert "tt-agent --invite" in answer["resolution"]
        await fleet.joined(changed)
        found = await fleet.hear()
        assert (found.get("error"), found["resource"]["vm_count"]) == (None, 1)
        assert (await fleet.controller.ask("DELETE", "/api/envs/e1"))[0] == 200


async def test_a_credential_is_good_with_the_certificate_that_it_was_given_with(tmp_path: Path) -> None:
    async def asked(host: RunningHost, scheme: str = "https") -> int:
        async with (
            aiohttp.ClientSession(headers=headers) as client,
            client.get(f"{scheme}://{host.addr}/api/info", ssl=False) as answer,
        ):
            return answer.status

    settings = joined_only(tmp_path / "h1")
    async with running_host(settings) as host:
        body = {"token": token_of(tmp_path / "h1")}
        async with (
            aiohttp.ClientSession() as client,
            client.post(f"https://{host.addr}/api/join", json=body, ssl=False) as answer,
        ):
            credential = (await answer.json())["data"]["credential"]
    headers = {"authorization": f"Bearer {credential}"}
    async with running_host(settings) as again:
        assert await asked(again) == 200
    async with running_host(replace(settings, listening=replace(settings.listening, tls=False))) as plain:
        assert await asked(plain, "http") == 401
    (tmp_path / "h1" / "data" / "tls.pem").unlink()
    async with running_host(settings) as other:
        assert await asked(other) == 401


async def test_a_token_is_good_once_also_for_two_at_once(fleet: Fleet, tmp_path: Path) -> None:
    async with running_host(joined_only(tmp_path / "h1")) as host:
        token = token_of(tmp_path / "h1")
        body = {"token": token}
        async with aiohttp.ClientSession(f"https://{host.addr}") as anybody:

            async def join() -> int:
                async with anybody.post("/api/join", json=body, ssl=False) as answer:
                    return answer.status

            assert sorted(await asyncio.gather(*(join() for _ in range(4)))) == [200, 403, 403, 403]
        await fleet.refused(502, "token_refused", host.addr, token)
        await fleet.joined(host)


async def test_an_expired_token_is_refused_and_there_is_another(fleet: Fleet, tmp_path: Path) -> None:
    async with running_host(joined_only(tmp_path / "h1")) as host:
        good = parse_join_token(token_of(tmp_path / "h1"))
        expired = replace(good, expires_at=utc_now() - timedelta(seconds=1))
        (tmp_path / "h1" / "data" / "join.token").write_text(f"{expired.text}\n")
        await fleet.refused(502, "token_expired", host.addr, expired.text)
        # A longer life cannot be written into it: only the very same words are taken.
        longer = replace(expired, expires_at=utc_now() + timedelta(days=1))
        await fleet.refused(502, "token_refused", host.addr, longer.text)
        await fleet.joined(host)


@pytest.mark.parametrize("spoil", [lambda token: token[:-1], lambda token: token.replace(".", ""), lambda _: "x" * 43])
async def test_a_token_that_is_not_whole_is_sent_nowhere(fleet: Fleet, spoil: Any) -> None:
    async with man_in_the_middle(None) as listener:
        answer = await fleet.refused(400, "invalid_join_token", listener.addr, spoil(fresh_token("ab" * 32).text))
        assert listener.connections == 0
        assert "bjt_" not in str(answer)


async def test_a_host_that_needs_a_token_says_so_to_who_has_none(fleet: Fleet, tmp_path: Path) -> None:
    async with running_host(joined_only(tmp_path / "h1")) as host:
        answer = await fleet.refused(502, "host_speaks_tls", host.addr)
        assert "tt-agent --invite" in answer["resolution"]


async def test_a_host_with_the_fleets_key_and_tls_takes_both(fleet: Fleet, tmp_path: Path) -> None:
    async with running_host(joined_only(tmp_path / "h1", api_key=FLEET_KEY)) as host:
        headers = {"authorization": f"Bearer {FLEET_KEY}"}
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"https://{host.addr}/api/info", headers=headers, ssl=False) as answer,
        ):
            assert answer.status == 200
        await fleet.joined(host)


async def test_a_removed_host_is_trusted_no_more(fleet: Fleet, tmp_path: Path) -> None:
    async with running_host(joined_only(tmp_path / "h1")) as host:
        await fleet.joined(host)
        assert (await fleet.controller.ask("DELETE", "/api/hosts/h1"))[0] == 200
        await fleet.refused(502, "host_speaks_tls", host.addr)


def test_a_host_invites_with_a_new_token_each_time(tmp_path: Path) -> None:
    folder = _private(tmp_path / "data")
    with pytest.raises(NotFound):
        invitation(folder)
    fingerprint = host_certificate(folder).fingerprint
    (folder / "join.address").write_text("10.0.0.2:9100\n")
    (folder / "join.address").chmod(0o600)
    (folder / "join.token").write_text(fresh_token(fingerprint).text)
    (folder / "join.token").chmod(0o600)
    address, first = invitation(folder)
    _, second = invitation(folder)
    assert (address, first.fingerprint, second.fingerprint) == ("10.0.0.2:9100", fingerprint, fingerprint)
    assert first.secret != second.secret
    assert (folder / "join.token").read_text().strip() == second.text
    assert first.secret not in repr(first)


def test_a_certificate_stays_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    folder = _private(tmp_path / "data")
    first = host_certificate(folder)
    assert host_certificate(folder).fingerprint == first.fingerprint
    assert re.fullmatch("[0-9a-f]{64}", first.fingerprint)
    (folder / "tls.pem").chmod(0o644)
    with pytest.raises(Invalid) as readable:
        host_certificate(folder)
    assert readable.value.code == "unsafe_file"
    (folder / "tls.pem").chmod(0o600)
    text = (folder / "tls.pem").read_text()
    (folder / "tls.pem").write_text(text[: text.index("-----BEGIN CERTIFICATE")])
    with pytest.raises(Invalid) as damaged:
        host_certificate(folder)
    assert damaged.value.code == "damaged_file"
    assert "tls.pem" in str(damaged.value)


def test_a_token_is_read_as_it_was_written() -> None:
    for fingerprint in ("ab" * 32, None):
        token = fresh_token(fingerprint)
        again = parse_join_token(token.text)
        assert (again.secret, again.fingerprint) == (token.secret, token.fingerprint)
        assert again.text == token.text
        assert isinstance(again, JoinToken)


@pytest.mark.parametrize(
    ("listen", "more", "tls"),
    [
        ("127.0.0.1:9100", {"join_only": True}, False),
        ("0.0.0.0:9100", {"join_only": True}, True),
        ("0.0.0.0:9100", {"join_only": True, "tls": False}, False),
        ("0.0.0.0:9100", {"api_key": "k"}, False),
        ("0.0.0.0:9100", {"api_key": "k", "tls": True}, True),
        ("127.0.0.1:9100", {"tls": True}, True),
    ],
)
def test_https_is_served_where_others_connect_with_a_token_and_plain_http_to_the_references_clients(
    listen: str, more: dict[str, Any], *, tls: bool
) -> None:
    assert host_settings({}, listen=listen, **more).listening.tls is tls


def _private(folder: Path) -> Path:
    folder.mkdir(mode=0o700)
    return folder


def _fingerprint(host: RunningHost) -> str:
    assert host.opened.certificate is not None
    return host.opened.certificate.fingerprint
