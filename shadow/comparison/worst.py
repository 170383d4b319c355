"""The worst disagreements, as examples; bounded, and redacted by the caller."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Self

from understudy.shadow.state import Saved, Setting, Stateful

MOST_BYTES = 4096
"""Of each of inputs and answers, as JSON."""


class Worst(Stateful):
    """Keeps the ``keep`` most severe ones, earlier ones first where they are alike."""

    keep: Setting[int]
    entries: Saved[list[dict[str, Any]]]

    def __init__(self, keep: int = 20) -> None:
        self.keep = keep
        self.entries = []

    def _restored(self) -> None:
        self._trim()

    def wants(self, severity: float) -> bool:
        """Whether an entry of that severity would be kept."""
        return self.keep > len(self.entries) or (
            self.keep > 0 and severity > self.entries[-1]["severity"]
        )

    def offer(
        self,
        severity: float,
        at: float,
        request_id: str,
        explanation: str,
        inputs: Mapping[str, object],
        champion: Mapping[str, object],
        challenger: Mapping[str, object],
    ) -> bool:
        """Offer one; False when it is not bad enough, or its request is there already."""
        if not self.wants(severity) or any(e["request_id"] == request_id for e in self.entries):
            return False
        self.entries.append(
            {
                "severity": severity,
                "at": at,
                "request_id": request_id,
                "explanation": explanation,
                "inputs": _bounded(inputs),
                "champion": _bounded(champion),
                "challenger": _bounded(challenger),
            }
        )
        self._trim()
        return True

    def _trim(self) -> None:
        self.entries.sort(key=lambda e: (-e["severity"], e["at"], e["request_id"]))
        del self.entries[self.keep :]

    def merge(self, other: Self) -> Self:
        """The worst of both."""
        both = type(self)(max(self.keep, other.keep))
        known = {entry["request_id"]: entry for entry in (*other.entries, *self.entries)}
        both.entries = list(known.values())
        both._trim()
        return both


def _bounded(values: Mapping[str, object]) -> dict[str, object]:
    """Whole entries up to the limit in bytes, and the number of omitted ones."""
    selected: dict[str, object] = {}
    left = MOST_BYTES
    for name, value in values.items():
        left -= len(json.dumps([name, value], default=str))
        if left < 0:
            selected["…"] = f"{len(values) - len(selected)} more"
            break
        selected[name] = value
    return selected
