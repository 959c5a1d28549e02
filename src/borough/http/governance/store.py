"""Installed agents: ``/store/agents``."""

from typing import Annotated

from msgspec import Meta, Struct

from borough.core.clock import rfc3339
from borough.governance.manifest_reading import parse_manifest
from borough.governance.ports.register import InstalledAgent
from borough.http.governance.agents import MANIFEST_ERRORS
from borough.http.governance.common import LEDGER_ERRORS, REFUSALS, asker
from borough.http.operations import Access, Answer, Call, Operation, Reply

STORE_ERRORS = {**REFUSALS, "agent_not_installed": 404}


class InstallRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    manifest_yaml: str
    install_dir: (
        Annotated[str, Meta(description="where the agent's program lies; a folder of the daemon's by default")] | None
    ) = None


class Installed(Struct, kw_only=True):
    name: str
    version: str
    runtime: str
    install_dir: str
    installed_at: str


class InstalledDetail(Installed, kw_only=True):
    manifest_yaml: str


async def install(call: Call) -> object:
    body: InstallRequest = call.body
    installed = await call.state.agent_store.install(asker(call), body.manifest_yaml, folder=body.install_dir)
    return Reply(status=201, body=_shown(installed), headers={"location": f"/store/agents/{installed.name}"})


async def listing(call: Call) -> object:
    return [_shown(one) for one in await call.state.agent_store.all(asker(call))]


async def show(call: Call) -> object:
    return _detail(await call.state.agent_store.get(asker(call), call.path["name"]))


async def remove(call: Call) -> object:
    await call.state.agent_store.remove(asker(call), call.path["name"])
    return Reply(status=204)


def _shown(one: InstalledAgent) -> Installed:
    return Installed(
        name=one.name,
        version=one.version,
        runtime=parse_manifest(one.manifest_yaml).program.runtime.value,
        install_dir=one.install_dir,
        installed_at=rfc3339(one.installed_at),
    )


def _detail(one: InstalledAgent) -> InstalledDetail:
    shown = _shown(one)
    return InstalledDetail(
        name=shown.name,
        version=shown.version,
        runtime=shown.runtime,
        install_dir=shown.install_dir,
        installed_at=shown.installed_at,
        manifest_yaml=one.manifest_yaml,
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="/store/agents",
        handler=listing,
        access=Access.CALLER,
        summary="The installed agents",
        tag="store",
        answers=(Answer(status=200, body=list[Installed], description="by name"),),
        errors=REFUSALS,
    ),
    Operation(
        method="POST",
        path="/store/agents",
        handler=install,
        access=Access.CALLER,
        summary="Install an agent under the name in its manifest, over an older one",
        tag="store",
        body=InstallRequest,
        answers=(Answer(status=201, body=Installed, description="it is installed"),),
        errors={
            **REFUSALS,
            **MANIFEST_ERRORS,
            **LEDGER_ERRORS,
            "install_folder": 422,
            "install_folder_unwritable": 503,
        },
    ),
    Operation(
        method="GET",
        path="/store/agents/{name}",
        handler=show,
        access=Access.CALLER,
        summary="One installed agent with its manifest",
        tag="store",
        answers=(Answer(status=200, body=InstalledDetail, description="the agent"),),
        errors=STORE_ERRORS,
    ),
    Operation(
        method="DELETE",
        path="/store/agents/{name}",
        handler=remove,
        access=Access.CALLER,
        summary="Forget an installed agent; those that run go on",
        tag="store",
        answers=(Answer(status=204, body=None, description="it is forgotten"),),
        errors={**STORE_ERRORS, **LEDGER_ERRORS},
    ),
)
