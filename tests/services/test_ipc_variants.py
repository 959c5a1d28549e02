"""Every message of the sockets is a row of the operation table, field for field."""

import re
from pathlib import Path

import msgspec
import pytest

from borough.http.governance.routes import OPERATIONS
from borough.http.operations import Operation
from borough.ipc.rows import Row, Variant
from borough.ipc.variants.table import VARIANTS

ROWS = {(row.method, row.path): row for row in OPERATIONS}


def rows(variant: Variant) -> list[Row]:
    return list(variant.rows)


def members(struct: object) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(struct)}  # type: ignore[arg-type]  # a Struct


def required(struct: object) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(struct) if field.required}  # type: ignore[arg-type]  # a Struct


def check(row: Row, operation: Operation) -> None:
    placeholders = {part.strip("{}").removesuffix("...") for part in row.path.split("/") if part.startswith("{")}
    assert set(row.parameters) == placeholders
    if row.query or row.defaults:
        assert operation.query is not None
        assert {*row.query.values(), *row.defaults} <= members(operation.query)
    if row.body is not None or row.constant:
        assert operation.body is not None
        filled = {*(row.body or {}).values(), *row.constant}
        assert filled <= members(operation.body)
        assert required(operation.body) <= filled
    elif row.whole is None:
        assert operation.body is None or operation.body_optional


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_a_message_fills_a_row_that_is_served(name: str) -> None:
    for row in rows(VARIANTS[name]):
        assert (row.method, row.path) in ROWS, f"{row.method} {row.path} is not served"
        check(row, ROWS[row.method, row.path])


def test_streams_and_pages_apart_every_row_can_be_asked_for_over_the_sockets() -> None:
    meant = {(row.method, row.path) for variant in VARIANTS.values() for row in variant.rows}
    streams = {("GET", "/events"), ("POST", "/stream-tickets"), ("GET", "/audit/export")}
    itself = {("POST", "/agents/self/messages")}  # the sockets' messages over HTTP
    assert {key for key in ROWS if key not in meant} <= streams | itself


def test_the_page_lists_every_message_with_its_fields_and_its_row() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "sockets.md").read_text()
    listed = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("| `")}
    assert set(listed) >= {f"`{name}`" for name in VARIANTS}
    for name, variant in VARIANTS.items():
        line = listed[f"`{name}`"]
        fields = {field for row in variant.rows for field in row.fields()} | ({variant.own} if variant.own else set())
        assert set(re.findall(r"`(\w+)`", line.split("|")[2])) == fields, name
        assert [f"{row.method} {row.path}" for row in variant.rows] == re.findall(r"`([A-Z]+ /[^`]*)`", line)
