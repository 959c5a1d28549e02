"""What is loaded for logs, made smaller: structlog brings a library for coloured tracebacks wherever it finds one.

Ours are plain, since coloured ones print local variables. Loading that library is a tenth of a server's start.
"""

import sys
from importlib import import_module
from typing import Final

_UNUSED: Final = "rich"


def load_lean() -> None:
    """Load structlog without it. Whoever wants the library afterwards has it; nothing happens if one is loaded."""
    if "structlog" in sys.modules or _UNUSED in sys.modules:
        return
    sys.modules[_UNUSED] = None  # type: ignore[assignment]  # so that importing it fails (the import system's own word)
    try:
        import_module("structlog")
    finally:
        del sys.modules[_UNUSED]
