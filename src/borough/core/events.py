"""What happened: the record that is written in the same step as the change it tells of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One entry of an event stream. ``id`` orders events and is what a reader resumes from."""

    id: str
    type: str
    at: datetime
    message: str
    subjects: Mapping[str, str] = field(default_factory=dict)
    """Whom it concerns and how: ``agent_id``, ``task_id``, ``old_state``, ``new_state``, ``reason`` …"""
