"""Stages of a gate as annotations in Grafana: regions over whatever a dashboard shows."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable

from understudy.common.http import call
from understudy.loadtest.engine.outcome import Outcome
from understudy.loadtest.gate.plan import Stage
from understudy.loadtest.gate.result import StageResult
from understudy.loadtest.gate.show import SilentProgress

TAG = "understudy-gate"
"""The dashboards look for it."""
TOKEN = "GRAFANA_TOKEN"
"""Name of the variable that holds the token of a service account, where one is needed."""
_TIMEOUT = 5.0


class AnnotatingProgress(SilentProgress):
    """Shows a gate as ``inner`` does, and posts each stage that has ended to Grafana at ``url``.

    A Grafana that is away or refuses is said once, and changes nothing about the gate.
    """

    def __init__(
        self, inner: SilentProgress, url: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._inner = inner
        self._url = url.rstrip("/") + "/api/annotations"
        self._clock = clock
        self._begun = 0.0
        self._failed = False

    def stage(self, stage: Stage, number: int, count: int) -> None:
        """A stage begins."""
        self._begun = self._clock()
        self._inner.stage(stage, number, count)

    def update(self, outcome: Outcome, elapsed: float, seconds: float) -> None:
        """Some more requests have ended."""
        self._inner.update(outcome, elapsed, seconds)

    def say(self, text: str) -> None:
        """Something that people should know."""
        self._inner.say(text)

    def done(self, result: StageResult) -> None:
        """A stage is over."""
        self._inner.done(result)
        problem = self._post(
            {
                "time": int(self._begun * 1000),
                "timeEnd": int(self._clock() * 1000),
                "tags": [TAG, result.kind, result.verdict],
                "text": f"{result.name}: {result.verdict}"
                + "".join(f"\n{reason}" for reason in result.why),
            }
        )
        if problem and not self._failed:
            self._failed = True
            self._inner.say(f"Grafana got no annotation: {problem}")

    def _post(self, annotation: dict[str, object]) -> str:
        """What went wrong, or an empty text."""
        headers = {"Content-Type": "application/json"}
        if token := os.environ.get(TOKEN):
            headers["Authorization"] = f"Bearer {token}"
        body = json.dumps(annotation).encode()
        try:
            response = call(
                self._url, "POST", body, headers, timeout_seconds=_TIMEOUT, outside=True
            )
        except OSError as error:
            return f"{self._url}: {error}"
        if response.status >= 300:
            return f"{self._url}: answered {response.status}; see {TOKEN}"
        return ""
