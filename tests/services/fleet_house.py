"""Controllers and host daemons on ports of their own, in the test's process, with everything real but the engine."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
from starlette.types import ASGIApp

from borough.bootstrap.fleet import FleetController, open_fleet
from borough.bootstrap.host import HostParts, OpenHost, open_host
from borough.bootstrap.serving import serve, take
from borough.config.fleet import ControllerSettings, HostSettings, Listening, controller_settings, host_settings
from borough.controllers.loops import Controller
from borough.fleet.engines import Engine
from borough.fleetd import fleet_application
from borough.hostd import host_application
from tests.services.plain_engine import PlainEngine, plain_image, plain_parts


def settings_of_host(folder: Path, **other: Any) -> HostSettings:
    settings = host_settings(
        {},
        listen="127.0.0.1:0",
        image_dir=str(folder / "images"),
        runtime_dir=str(folder / "runtime"),
        data_dir=folder / "data",
        cpu_total=8,
        mem_total=8192,
        disk_total=100_000,
    )
    return replace(settings, **other)


def settings_of_controller(folder: Path, **other: Any) -> ControllerSettings:
    return replace(controller_settings({}, listen="127.0.0.1:0", data_dir=folder / "ctl"), **other)


def with_key(key: str, **other: Any) -> Listening:
    return Listening(host="127.0.0.1", port=0, api_key=key, **other)


@dataclass(slots=True)
class RunningHost:
    """A host daemon that serves."""

    addr: str
    opened: OpenHost
    engine: PlainEngine


@asynccontextmanager
async def opened_host(settings: HostSettings) -> AsyncIterator[tuple[OpenHost, PlainEngine]]:
    """Yield a host without HTTP; what is left of its machines is ended afterwards."""
    images = Path(settings.image_dir)
    if not (images / "base").exists():
        plain_image(images)
    kept: list[PlainEngine] = []

    @asynccontextmanager
    async def parts(wanted: HostSettings, marker: str) -> AsyncIterator[HostParts]:
        async with plain_parts(wanted, marker) as made:
            driver = made.drivers[Engine.BUBBLEWRAP]
            assert isinstance(driver, PlainEngine)
            kept.append(driver)
            yield made

    async with open_host(settings, parts=parts) as opened:
        try:
            yield opened, kept[0]
        finally:
            kept[0].trouble.errors.clear()
            kept[0].trouble.stalls.clear()


async def end_machines(engine: PlainEngine) -> None:
    for vm_id in await engine.machines():
        await engine.destroy(vm_id)


@asynccontextmanager
async def running_host(
    settings: HostSettings, *, keep: bool = False, wrapped: Callable[[ASGIApp], ASGIApp] = lambda app: app
) -> AsyncIterator[RunningHost]:
    """Yield a host daemon that serves on a free port (or again on the one of ``settings``).

    ``wrapped`` may put something between its application and whoever calls.
    """
    opening = take(settings.listening, settings.data_dir, how="--listen")
    stopping = asyncio.Event()
    async with opened_host(settings) as (opened, engine):
        app = wrapped(host_application(settings, opening, opened, stopping))
        tls = None if opened.certificate is None else opened.certificate.context
        async with _served(
            lambda: serve(opening, app, stopping, name="tt-agent", loops=(), tls=tls), opening.url, stopping
        ):
            try:
                yield RunningHost(addr=opening.url.partition("://")[2], opened=opened, engine=engine)
            finally:
                if not keep:
                    await end_machines(engine)


@dataclass(slots=True)
class RunningController:
    """A controller that serves, and a client of it."""

    url: str
    opened: FleetController
    client: aiohttp.ClientSession

    async def ask(self, method: str, path: str, *, json: Any = None, **more: Any) -> tuple[int, Any]:
        async with self.client.request(method, f"{self.url}{path}", json=json, **more) as answer:
            return answer.status, await answer.json(content_type=None)


@asynccontextmanager
async def running_controller(
    settings: ControllerSettings, *, loops: Callable[[FleetController], tuple[Controller, ...]] = lambda _fleet: ()
) -> AsyncIterator[RunningController]:
    """Yield a controller that serves on a free port; ``loops`` chooses which of its loops run."""
    opening = take(settings.listening, settings.data_dir, how="--listen")
    stopping = asyncio.Event()
    key = settings.listening.api_key
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    async with open_fleet(settings) as opened:
        app = fleet_application(settings, opening, opened, stopping)
        chosen = loops(opened)
        async with (
            _served(lambda: serve(opening, app, stopping, name="tt-ctl", loops=chosen), opening.url, stopping),
            aiohttp.ClientSession(headers=headers) as client,
        ):
            yield RunningController(url=opening.url, opened=opened, client=client)


@asynccontextmanager
async def _served(serving: Callable[[], Any], url: str, stopping: asyncio.Event) -> AsyncIterator[None]:
    task = asyncio.create_task(serving())
    try:
        async with aiohttp.ClientSession() as client, asyncio.timeout(60):
            while True:
                assert not task.done() or task.exception() is None
                try:
                    async with client.get(f"{url}/health", ssl=False):
                        break
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.01)
        yield
    finally:
        stopping.set()
        await task
