"""Posts the stages of a gate to Grafana as region annotations."""

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
"""The dashboards query this tag."""
TOKEN = "GRAFANA_TOKEN"  # noqa: S105  # the name of a variable
"""Environment variable with the token of a Grafana service account."""
_TIMEOUT = 5.0


class AnnotatingProgress(SilentProgress):
    """Forwards progress to ``inner``, and posts each finished stage to Grafana at ``url``.

    If Grafana fails, ``inner`` shows it once; the gate goes on.
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
        """A stage starts; it is ``number`` of ``count``."""
        self._begun = self._clock()
        self._inner.stage(stage, number, count)

    def update(self, outcome: Outcome, elapsed: float, seconds: float) -> None:
        """More requests have ended; ``elapsed`` and ``seconds`` are of the stage."""
        self._inner.update(outcome, elapsed, seconds)

    def note(self, text: str) -> None:
        """Show a message."""
        self._inner.note(text)

    def done(self, result: StageResult) -> None:
        """A stage has ended."""
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
            self._inner.note(f"cannot post the annotation to Grafana: {problem}")

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
