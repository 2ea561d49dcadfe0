"""Starting, stopping, continuing and adopting runs. Everything here returns at once."""

from backend.supervisor.control import adopt_orphans, delete, queue, resume, stop
from backend.supervisor.parameters import check_parameters, command, validated
from backend.supervisor.starting import PAGE_ONLY, start

__all__ = [
    "PAGE_ONLY",
    "adopt_orphans",
    "check_parameters",
    "command",
    "delete",
    "queue",
    "resume",
    "start",
    "stop",
    "validated",
]
