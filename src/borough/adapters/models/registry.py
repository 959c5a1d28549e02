"""A file that says which models there are, what they cost and how they rank.

It is YAML (or JSON): a list of entries with ``id``, ``input`` and ``output`` (money for a million tokens), ``speed``
and ``capability`` (ranks, 1 is the best), and ``purpose`` (``chat`` or ``embedding``).
"""

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import msgspec

from borough.core.errors import Invalid
from borough.governance.documents import LONGEST_DOCUMENT_BYTES, load_document
from borough.governance.models import Model, Purpose

_MICROS = 1_000_000
_DEAREST = 1_000_000


class _Entry(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    input: Annotated[float, msgspec.Meta(ge=0, le=_DEAREST)]
    output: Annotated[float, msgspec.Meta(ge=0, le=_DEAREST)] = 0
    speed: Annotated[int, msgspec.Meta(ge=1)] = 1
    capability: Annotated[int, msgspec.Meta(ge=1)] = 1
    purpose: Purpose = Purpose.CHAT


def read_registry(path: Path) -> tuple[Model, ...]:
    """Return the models that the file names.

    Raises:
        Invalid: it cannot be read (``invalid_yaml``, ``invalid_registry``).
    """
    try:
        with path.open("rb") as file:
            text = file.read(LONGEST_DOCUMENT_BYTES + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise _invalid(path, str(error)) from None
    return parse_registry(load_document(text), path)


def parse_registry(document: Any, path: Path) -> tuple[Model, ...]:
    """Return the models that a document read from ``path`` names; raises ``Invalid`` as ``read_registry`` does."""
    try:
        entries = msgspec.convert(document, list[_Entry])
    except msgspec.ValidationError as error:
        raise _invalid(path, str(error)) from None
    names = [entry.id for entry in entries]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise _invalid(path, f"{twice!r} is there twice")
    return tuple(_model(entry) for entry in entries)


def _model(entry: _Entry) -> Model:
    return Model(
        id=entry.id,
        input_micros=_micros(entry.input),
        output_micros=_micros(entry.output),
        speed_rank=entry.speed,
        capability_rank=entry.capability,
        purpose=entry.purpose,
    )


def _micros(price: float) -> int:
    # By way of its decimal spelling: 0.1 is meant as a tenth.
    return int(Decimal(str(price)) * _MICROS)


def _invalid(path: Path, reason: str) -> Invalid:
    return Invalid(
        f"the model registry {path} cannot be used",
        code="invalid_registry",
        reason=reason,
        resolution="write a list of entries with id, input, output, speed, capability and purpose",
    )
