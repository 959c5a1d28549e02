"""Documents of OpenAPI as values, and as the texts that are served."""

import json
import re
from typing import Any

Document = dict[str, Any]

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./{}-]*\Z")
_YAML_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n", "~"})


def to_json(whole: Document) -> bytes:
    """Return ``whole`` as JSON."""
    return json.dumps(whole, separators=(",", ":"), ensure_ascii=False).encode()


def to_yaml(whole: Document) -> str:
    """Return ``whole`` as YAML 1.2: blocks for structure, and texts as JSON strings, which YAML reads alike."""
    return "\n".join(_yaml_lines(whole, 0)) + "\n"


def _yaml_lines(value: Any, depth: int) -> list[str]:
    indent = "  " * depth
    if isinstance(value, dict) and value:
        lines = []
        for key, item in value.items():
            lines.extend(_yaml_entry(f"{indent}{_yaml_key(key)}:", item, depth))
        return lines
    if isinstance(value, list) and value:
        lines = []
        for item in value:
            inner = _yaml_lines(item, depth + 1)
            lines.append(f"{indent}- {inner[0].lstrip(' ')}")
            lines.extend(inner[1:])
        return lines
    return [indent + json.dumps(value, ensure_ascii=False)]


def _yaml_entry(head: str, value: Any, depth: int) -> list[str]:
    if isinstance(value, dict | list) and value:
        return [head, *_yaml_lines(value, depth + 1)]
    return [f"{head} {json.dumps(value, ensure_ascii=False)}"]


def _yaml_key(key: str) -> str:
    return key if _PLAIN.match(key) and key.lower() not in _YAML_WORDS else json.dumps(key, ensure_ascii=False)
