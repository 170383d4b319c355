"""The assignment in force, and experiments declared over the API: one file in the state folder.

The evaluation plane writes it, then asks the supervisor to pass the new routes to the workers. The
supervisor reads it at start, so that after a restart the first request already goes to the arm of
its unit.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from understudy.common.durable import read_document, replace_document, set_aside
from understudy.monitor.errors import StateError
from understudy.shadow.assignment import OUT, Allocation

log = logging.getLogger(__name__)

FILE_NAME = "routes.json"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Assignment:
    """An allocation over the arms ``names``, the champion first, and by challenger the rollouts
    that led to it. ``started`` is when the experiment began, ``divided_at`` when the allocation was
    decided (unix seconds). ``servers`` says by arm which model server it was."""

    names: tuple[str, ...]
    allocation: Allocation
    started: float = 0.0
    divided_at: float = 0.0
    rollouts: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    servers: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "names": list(self.names),
            "allocation": self.allocation.to_dict(),
            "started": self.started,
            "divided_at": self.divided_at,
            "rollouts": dict(self.rollouts),
            "servers": dict(self.servers),
        }

    @classmethod
    def from_dict(cls, item: Mapping[str, Any]) -> Assignment:
        """Undo :meth:`to_dict`. Raises ValueError, KeyError or TypeError when malformed."""
        return cls(
            tuple(map(str, item["names"])),
            Allocation.from_dict(item["allocation"]),
            float(item["started"]),
            float(item["divided_at"]),
            dict(item["rollouts"]),
            {str(arm): str(server) for arm, server in item.get("servers", {}).items()},
        )

    def over(self, arms: tuple[str, ...]) -> Allocation | None:
        """The allocation over the indices of a plan's arms; None when an arm was removed."""
        if any(name not in arms for name in self.names):
            return None
        indices = tuple(
            OUT if arm == OUT else arms.index(self.names[arm]) for arm in self.allocation.arms
        )
        return Allocation(self.allocation.starts, indices)


@dataclass(frozen=True, slots=True)
class Routes:
    """Assignments and experiments on disk.

    ``assignments`` are by experiment. ``declared`` are experiments as plain data. ``events`` are
    those of the last change: they are appended to the audit log after this file is written, also
    after a crash.
    """

    assignments: Mapping[str, Assignment] = field(default_factory=dict)
    declared: tuple[dict[str, Any], ...] = ()
    events: tuple[dict[str, Any], ...] = ()

    @classmethod
    def load(cls, state_dir: Path) -> Routes:
        """Load the file; without one nothing is assigned. Raises StateError when it is invalid."""
        path = state_dir / FILE_NAME
        try:
            data = json.loads(read_document(path))
            if data["version"] != _VERSION:
                raise StateError(f"{path}: unknown version {data['version']!r}")
            return cls(
                {name: Assignment.from_dict(item) for name, item in data["assignments"].items()},
                tuple(dict(item) for item in data["declared"]),
                tuple(dict(item) for item in data["events"]),
            )
        except FileNotFoundError:
            return cls()
        except StateError:
            raise
        except Exception as error:  # whatever the file holds
            raise StateError(f"{path}: cannot be used: {error!r}") from error

    def save(self, state_dir: Path) -> None:
        """Replace the file. Raises OSError."""
        data = {
            "version": _VERSION,
            "assignments": {name: item.to_dict() for name, item in self.assignments.items()},
            "declared": list(self.declared),
            "events": list(self.events),
        }
        state_dir.mkdir(parents=True, exist_ok=True)
        replace_document(state_dir / FILE_NAME, json.dumps(data).encode())

    @property
    def serving(self) -> frozenset[str]:
        """Experiments with a challenger that serves clients."""
        return frozenset(
            name for name, assignment in self.assignments.items() if assignment.allocation.splits
        )


def load_or_set_aside(state_dir: Path) -> Routes:
    """Load the routes; an invalid file is renamed, and nothing is assigned.

    All requests then go to the champion, so clients are still served.
    """
    try:
        return Routes.load(state_dir)
    except StateError as error:
        aside = set_aside(state_dir / FILE_NAME)
        log.error("%s; the champion serves all requests, the file is kept as %s", error, aside)
        return Routes()
