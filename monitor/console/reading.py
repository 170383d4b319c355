"""What a view reads of the API, and what every view shows of it: the bar at the top."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import quote, urlencode

RANGES = {
    "15m": 900.0,
    "1h": 3600.0,
    "6h": 21_600.0,
    "24h": 86_400.0,
    "7d": 604_800.0,
    "30d": 2_592_000.0,
}
"""What the charts show, in seconds."""
RANGE = "1h"
_TONES = ("good", "neutral", "warn", "bad")
_FINISHED = ("promoted", "rolled_back", "aborted")
ROWS = 40
"""Arms that a page shows at once; a search finds the others."""


class Source(Protocol):
    """The API, with the rights of the reader."""

    async def get(self, target: str) -> tuple[int, Any]:
        """Status and JSON of a GET request."""


class NotFound(Exception):
    """What the query names is not there; ``code`` is the status."""

    def __init__(self, message: str, code: int = 404) -> None:
        super().__init__(message)
        self.code = code


class Reading:
    """One reading for one view. ``query`` is that of the page, ``of`` what it is the console of."""

    def __init__(self, source: Source, query: Mapping[str, str], of: str) -> None:
        self.query = query
        self.of = of
        self.now = time.time()
        self.arms: dict[str, Any] = {}
        self.findings: dict[str, Any] = {}
        self.incidents: list[dict[str, Any]] = []
        self.experiments: list[dict[str, Any]] = []
        self.evaluator: dict[str, Any] = {}
        self.hints: list[str] = []
        """Why a part is missing, in the words of the API."""
        self._source = source

    @property
    def range(self) -> str:
        """The chosen range of the charts."""
        chosen = self.query.get("range", "")
        return chosen if chosen in RANGES else RANGE

    @property
    def seconds(self) -> float:
        """Its length."""
        return RANGES[self.range]

    @property
    def refresh(self) -> float:
        """Seconds after which the page reads again: charts of a month do not change in seconds."""
        return min(60.0, max(2.0, self.seconds / 900.0))

    async def get(self, target: str) -> Any:
        """A document. Raises NotFound."""
        code, document = await self._source.get(target)
        if code != 200:
            error = (document or {}).get("error") or {}
            raise NotFound(str(error.get("message", f"the API answered {code}")), code)
        return document

    async def maybe(self, target: str) -> Any:
        """A document, or an empty one with a hint of why it is missing."""
        try:
            return await self.get(target)
        except NotFound as error:
            if str(error) != "Not Found" and str(error) not in self.hints:
                self.hints.append(str(error))
            return {}

    async def begin(self) -> None:
        """Read what every view shows."""
        search = urlencode({"text": self.query.get("text", ""), "limit": ROWS})
        first = f"/v1/arms?{search}" if self.of == "service" else "/v1/evaluator"
        status, findings, incidents, experiments = await asyncio.gather(
            self.maybe(first),
            self.maybe("/v1/findings?limit=1"),
            self.maybe("/v1/incidents?limit=30"),
            self.maybe("/v1/experiments"),
        )
        if self.of == "service":
            self.arms = status
        else:
            self.evaluator = status
        self.findings = findings
        self.incidents = incidents.get("incidents", [])
        self.experiments = experiments.get("experiments", [])

    # The bar ------------------------------------------------------------------------------------

    @property
    def open(self) -> dict[str, int]:
        """Open findings by severity."""
        found: dict[str, int] = self.findings.get("open") or {}
        return found

    @property
    def open_count(self) -> int:
        """All open findings."""
        return sum(self.open.values())

    @property
    def waiting(self) -> list[tuple[str, str]]:
        """Experiments and challengers that wait for a person's approval."""
        return [
            (one["name"], challenger["name"])
            for one in self.experiments
            for challenger in one["challengers"]
            if challenger["phase"] in ("waiting", "paused")
        ]

    @property
    def running(self) -> int:
        """Challengers whose experiment has not ended."""
        return sum(
            challenger["phase"] not in _FINISHED
            for one in self.experiments
            for challenger in one["challengers"]
        )

    @property
    def state(self) -> tuple[str, str]:
        """The worst of all, in a word, and its tone. It is good only if everything is."""
        if self.of != "service":
            return self._state_of_evaluator()
        if not self.arms:
            return "unknown", "bad"
        if not self.arms["ready"]:
            return "not ready", "bad"
        tones = self.arms["tones"]
        # What clients notice is worse than a challenger that is not compared.
        if any(arm["tone"] == "bad" for arm in self.serving) or self.open.get("critical"):
            return "trouble", "bad"
        if self.arms["warnings"] or tones.get("warn") or tones.get("bad"):
            return "degraded", "warn"
        if self.open_count:
            return "findings", "warn"
        if not tones.get("good"):
            return "ready, no traffic", "neutral"
        return "ready", "good"

    def _state_of_evaluator(self) -> tuple[str, str]:
        if not self.evaluator or self.evaluator.get("error"):
            return str(self.evaluator.get("error") or "unknown"), "bad"
        if not self.evaluator.get("judged_at"):
            return "not a member of the group yet", "bad"
        if self.open.get("critical"):
            return "trouble", "bad"
        return ("findings", "warn") if self.open_count else ("ready", "good")

    @property
    def serving(self) -> list[dict[str, Any]]:
        """Arms that serve clients or should, the largest share first."""
        found: list[dict[str, Any]] = self.arms.get("serving", [])
        return found

    @property
    def language_models(self) -> list[dict[str, Any]]:
        """Times, tokens and goodput of the language models of all arms that are shown."""
        return [one for arm in self.arms.get("arms", ()) for one in arm["language_models"]]

    def link(self, **changes: Any) -> str:
        """The address of a view, with the range that is chosen."""
        query = {"range": self.range} if self.range != RANGE else {}
        query |= {key: str(value) for key, value in changes.items() if value not in (None, "")}
        return f"?{urlencode(query, quote_via=quote)}" if query else "./"

    def here(self, **changes: Any) -> str:
        """The address of this view with other values."""
        query = {**self.query, **{k: str(v) for k, v in changes.items()}}
        return f"?{urlencode(query, quote_via=quote)}"
