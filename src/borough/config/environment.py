"""Environment variables: what each means, read in one place."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from borough.core.errors import Invalid

_YES = frozenset({"1", "true", "yes", "on"})


def text(environ: Mapping[str, str], name: str) -> str | None:
    """Return the variable without surrounding blanks; a blank one is as good as none."""
    return environ.get(name, "").strip() or None


def flag(environ: Mapping[str, str], name: str) -> bool:
    """Tell whether the variable says yes: ``1``, ``true``, ``yes`` or ``on``, in any case."""
    return environ.get(name, "").strip().lower() in _YES


def whole_number(environ: Mapping[str, str], name: str, *, least: int, most: int) -> int | None:
    """Return the variable as a number.

    Raises:
        Invalid: it is not a whole number from ``least`` to ``most`` (``invalid_environment``).
    """
    written = text(environ, name)
    if written is None:
        return None
    if not (written.isascii() and written.isdigit() and least <= int(written) <= most):
        raise Invalid(
            f"the environment variable {name} is {written!r}",
            code="invalid_environment",
            reason=f"it has to be a whole number from {least} to {most}",
            resolution=f"correct or unset {name}",
        )
    return int(written)


LEDGER_VARIABLE = "BOROUGH_LEDGER"


def shared_ledger(environ: Mapping[str, str]) -> Path | None:
    """Return the data folder of the ``agentd`` whose ledger this program shares; ``None``: it shares none."""
    told = text(environ, LEDGER_VARIABLE)
    return None if told is None else Path(told).expanduser().absolute()


def file(environ: Mapping[str, str], *names: str) -> Path | None:
    """Return the path that the first of these variables says that is not blank."""
    return next((Path(told) for name in names if (told := text(environ, name))), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerEnvironment:
    """What a worker may be told by its environment, in containers above all."""

    server_url: str | None = None
    """``BOROUGH_SERVER``"""
    token_file: Path | None = None
    """``BOROUGH_TOKEN_FILE``"""
    agent_name: str | None = None
    """``TINYTOWN_AGENT_NAME``"""
    role: str | None = None
    """``TINYTOWN_AGENT_ROLE``"""
    cli: str | None = None
    """``TINYTOWN_AGENT_CLI``"""
    ca_file: Path | None = None
    """``BOROUGH_CA_FILE``, else ``TINYTOWN_CA_FILE``"""
    server_cert_file: Path | None = None
    """``BOROUGH_SERVER_CERT_FILE``"""
    cert_file: Path | None = None
    """``BOROUGH_CERT_FILE``, else ``TINYTOWN_CLIENT_CERT``"""
    key_file: Path | None = None
    """``BOROUGH_KEY_FILE``, else ``TINYTOWN_CLIENT_KEY``"""


def worker_environment(environ: Mapping[str, str]) -> WorkerEnvironment:
    """Return what ``environ`` tells a worker."""
    return WorkerEnvironment(
        server_url=text(environ, "BOROUGH_SERVER"),
        token_file=file(environ, "BOROUGH_TOKEN_FILE"),
        agent_name=text(environ, "TINYTOWN_AGENT_NAME"),
        role=text(environ, "TINYTOWN_AGENT_ROLE"),
        cli=text(environ, "TINYTOWN_AGENT_CLI"),
        ca_file=file(environ, "BOROUGH_CA_FILE", "TINYTOWN_CA_FILE"),
        server_cert_file=file(environ, "BOROUGH_SERVER_CERT_FILE"),
        cert_file=file(environ, "BOROUGH_CERT_FILE", "TINYTOWN_CLIENT_CERT"),
        key_file=file(environ, "BOROUGH_KEY_FILE", "TINYTOWN_CLIENT_KEY"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerEnvironment:
    """What a container of the server may be told by its environment."""

    town_dir: Path | None = None
    """``TINYTOWN_TOWN_DIR``"""
    town_name: str | None = None
    """``TINYTOWN_TOWN_NAME``"""
    bind: str | None = None
    """``TINYTOWN_REST_BIND``"""
    port: int | None = None
    """``TINYTOWN_REST_PORT``"""
    api_key_path: Path | None = None
    """``TINYTOWN_TOWNHALL_API_KEY_PATH``"""


def container_environment(environ: Mapping[str, str]) -> ContainerEnvironment:
    """Return what ``environ`` tells a server in a container.

    Raises:
        Invalid: the port is none (``invalid_environment``).
    """
    return ContainerEnvironment(
        town_dir=file(environ, "TINYTOWN_TOWN_DIR"),
        town_name=text(environ, "TINYTOWN_TOWN_NAME"),
        bind=text(environ, "TINYTOWN_REST_BIND"),
        port=whole_number(environ, "TINYTOWN_REST_PORT", least=1, most=65_535),
        api_key_path=file(environ, "TINYTOWN_TOWNHALL_API_KEY_PATH"),
    )
