"""YAML, read into plain values, with everything refused that a manifest has no use for.

Scalars mean what the YAML 1.2 core schema says (``no`` and ``12:30`` are text). Duplicate keys, tags, several
documents, endless nesting and aliases that multiply are refused.
"""

import re
from collections.abc import Iterator

import yaml

from borough.core.errors import Invalid
from borough.governance.documents import Plain

DEEPEST = 32
MOST_NODES = 20_000
"""Counted with every alias written out."""

_NULL, _BOOL, _INT, _FLOAT, _STR = (f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str"))
_RESOLVERS = (
    (_NULL, re.compile(r"~|null|Null|NULL|")),
    (_BOOL, re.compile(r"true|True|TRUE|false|False|FALSE")),
    (_INT, re.compile(r"[-+]?[0-9]{1,18}|0x[0-9a-fA-F]{1,15}|0o[0-7]{1,20}")),
    (_FLOAT, re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?")),
)


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with the resolution of YAML 1.2 and a limit on nesting."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as PyYAML declares it
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise _refused(f"it is nested deeper than {DEEPEST} levels", "flatten it")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def read(text: str) -> Plain:
    """Return the one document in ``text``; raises ``Invalid`` (``invalid_yaml``)."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise _refused(_told(error), "mend the YAML at that place") from None
    return None if node is None else _value(node, _Count(), ())


class _Dumper(yaml.SafeDumper):
    """Writes all text in quotes, so that no reader takes it for something else."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - as PyYAML declares it
        return True


_Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar(_STR, text, style='"'))


def write(document: Plain) -> str:
    """Return ``document`` as YAML that ``read`` reads as the same."""
    return str(yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=120))


class _Count:
    """How many nodes were read."""

    def __init__(self) -> None:
        self.left = MOST_NODES

    def one(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise _refused(f"it has more than {MOST_NODES} values, aliases written out", "repeat less")


def _value(node: yaml.Node, count: _Count, above: tuple[int, ...]) -> Plain:
    count.one()
    if id(node) in above:
        raise _refused(f"line {_line(node)}: an alias holds itself", "write the value out")
    if isinstance(node, yaml.MappingNode):
        return dict(_members(node, count, (*above, id(node))))
    if isinstance(node, yaml.SequenceNode):
        _check_tag(node, "seq")
        return [_value(item, count, (*above, id(node))) for item in node.value]
    return _scalar(node)


def _members(node: yaml.MappingNode, count: _Count, above: tuple[int, ...]) -> Iterator[tuple[str, Plain]]:
    _check_tag(node, "map")
    seen: set[str] = set()
    for key_node, value_node in node.value:
        key = _scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
        if not isinstance(key, str):
            raise _refused(f"line {_line(key_node)}: a key is not text", "put the key in quotes")
        if key in seen:
            raise _refused(f"line {_line(key_node)}: the key {key!r} is there twice", "keep one of them")
        seen.add(key)
        yield key, _value(value_node, count, above)


def _scalar(node: yaml.Node) -> Plain:
    text = str(node.value)
    # PyYAML marks what is quoted with the tag of text; plain text has it too, as no resolver of its is left.
    _check_tag(node, "str")
    if not isinstance(node, yaml.ScalarNode) or node.style is not None:
        return text
    kind = next((tag for tag, pattern in _RESOLVERS if pattern.fullmatch(text)), _STR)
    if kind == _NULL:
        return None
    if kind == _BOOL:
        return text.lower() == "true"
    if kind == _INT:
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    return float(text) if kind == _FLOAT else text


def _check_tag(node: yaml.Node, kind: str) -> None:
    if node.tag != f"tag:yaml.org,2002:{kind}":
        raise _refused(f"line {_line(node)}: the tag {node.tag!r} is not known here", "leave the tag out")


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _told(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem or error.context or 'it is not YAML'}"
    return str(error).splitlines()[0] if str(error) else "it is not YAML"


def _refused(reason: str, resolution: str) -> Invalid:
    return Invalid("the document cannot be read", code="invalid_yaml", reason=reason, resolution=resolution)
