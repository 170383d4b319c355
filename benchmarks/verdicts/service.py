"""A simulated service: clients, a champion, a challenger, and records as workers write them.

The records go through the evaluation itself (pipeline, stage one, experiments, rollout); only the
servers, the clients and the clock are simulated. So a verdict is one that users would get.
"""

from __future__ import annotations

import heapq
import itertools
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np
import orjson

from understudy.monitor.config.model import Config
from understudy.monitor.evidence.arms import LONGEST_SECONDS
from understudy.monitor.evidence.settings import Settings
from understudy.monitor.experiments.live import LiveExperiment
from understudy.monitor.experiments.runner import ExperimentRunner
from understudy.monitor.labels.store import Joined, Prediction
from understudy.monitor.pipeline.pipeline import Pipeline
from understudy.monitor.records import record
from understudy.monitor.records.encode import encode as encode_record
from understudy.monitor.records.handoff import Names, SplitNames
from understudy.shadow.assignment import OUT, point

START = 1.8e9
"""Unix time at which each simulation begins, in seconds."""
JSON = b"content-type: application/json"
BINARY = b"content-type: application/octet-stream"
LARGE = 300 * 1024
"""Bytes of a large request: above the default of ``capture.max_body``."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``segment`` is a number in [0, 1) of its content: a share of the requests that
    differs from the others in some way."""

    number: int
    at: float
    unit: bytes
    segment: float
    size: int
    label: float


Fault = Callable[[Request, float, int, np.random.Generator], str | None]
"""What goes wrong with a request, from the request, the seconds since the start, and the number of
requests that this server has had: "error", "hang", "wrong" (a wrong prediction), "unreadable", or
None."""


def healthy(request: Request, seconds: float, count: int, rng: np.random.Generator) -> str | None:
    """Nothing goes wrong."""
    return None


@dataclass(frozen=True)
class Server:
    """A model server. Times are in seconds.

    ``latency`` is the median, ``sigma`` the spread of its logarithm and ``correlation`` that from
    one request to the next; ``slots`` is how many requests it serves at once (0: any number),
    ``stalls`` are (second, duration) during which it does not answer, ``cold`` is how long its
    first requests wait at most; ``errors`` is a share, and ``burst`` how many requests in a row
    fail together. ``outages`` are the mean time from one outage to the next, the mean duration of
    one, and the share of requests that fail in it. The label of a wrong prediction takes
    ``late_errors`` longer.
    """

    latency: float = 0.03
    sigma: float = 0.4
    correlation: float = 0.0
    slots: int = 0
    stalls: tuple[tuple[float, float], ...] = ()
    cold: float = 0.0
    errors: float = 0.002
    burst: int = 1
    wrong: float = 0.1
    label_delay: float = 5.0
    late_errors: float = 0.0
    outages: tuple[float, float, float] | None = None
    fault: Fault = healthy


@dataclass(frozen=True)
class Traffic:
    """What clients do. ``rate`` is requests per second; ``units`` is the number of users (0: a
    request each); ``patience`` is how long a client waits, ``large`` the share of large requests,
    ``binary`` that of answers that cannot be read, ``labels`` that of requests with a label."""

    rate: float = 50.0
    units: int = 0
    patience: float = math.inf
    large: float = 0.0
    binary: float = 0.0
    labels: float = 0.0
    until: float = math.inf
    """Seconds after which no requests come any more."""
    clustered: float = 0.0
    """How far the error rate differs between users, as a standard deviation of its logit."""


@dataclass
class _Running:
    """A server with its state."""

    spec: Server
    rng: np.random.Generator
    level: float = 0.0
    count: int = 0
    failing: int = 0
    free: list[float] = field(default_factory=list)
    begins: float = -1.0
    ends: float = -1.0
    """Of the present or next outage, in seconds since the start."""

    def serve(self, request: Request, seconds: float, weakness: float) -> tuple[float, str | None]:
        """How long the request takes from ``seconds`` on, and what goes wrong with it."""
        spec = self.spec
        noise = self.rng.standard_normal()
        keep = spec.correlation
        self.level = keep * self.level + math.sqrt(1.0 - keep * keep) * noise
        took = spec.latency * math.exp(spec.sigma * self.level)
        begin = seconds
        if spec.slots:
            while len(self.free) >= spec.slots:
                begin = max(begin, heapq.heappop(self.free))
        for at, duration in spec.stalls:
            if at <= begin < at + duration:
                begin = at + duration
        if spec.cold and begin < spec.cold:
            begin = spec.cold
        end = begin + took
        if spec.slots:
            heapq.heappush(self.free, end)
        wrong = spec.fault(request, seconds, self.count, self.rng)
        self.count += 1
        if wrong is None and self._down(seconds):
            wrong = "error"
        if self.failing:
            self.failing -= 1
            wrong = wrong or "error"
        elif wrong is None and self.rng.random() < spec.errors * weakness / spec.burst:
            self.failing, wrong = spec.burst - 1, "error"
        if wrong is None and self.rng.random() < spec.wrong:
            wrong = "wrong"
        return (math.inf if wrong == "hang" else end - seconds), wrong

    def _down(self, seconds: float) -> bool:
        """Whether an outage makes a request fail."""
        if self.spec.outages is None:
            return False
        gap, length, share = self.spec.outages
        while self.ends < seconds:
            self.begins = max(self.ends, 0.0) + float(self.rng.exponential(gap))
            self.ends = self.begins + float(self.rng.exponential(length))
        return self.begins <= seconds and self.rng.random() < share


class SimulatedService:
    """The evaluation of one experiment with the traffic of a simulated service.

    ``declared`` is the experiment as in the configuration file, for the challenger "candidate".
    """

    def __init__(
        self,
        declared: dict[str, Any],
        champion: Server,
        challenger: Server,
        traffic: Traffic,
        seed: int,
        **config: Any,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="understudy-verdicts-")
        self.config = Config.model_validate(
            {
                "version": 1,
                "listen": "127.0.0.1:0",
                "state_dir": self._folder.name,
                "models": [{"name": "m", "protocol": "kserve-v1"}],
                # In the same proportion to the duration of the cases as by default.
                "champion": {"url": "http://127.0.0.1:9", "timeouts": {"first_byte": "30s"}},
                "challengers": [{"name": "candidate", "url": "http://127.0.0.1:9"}],
                "experiments": [{"name": "x", "challengers": ["candidate"], **declared}],
                **config,
            }
        )
        self.now = START
        self.pipeline = Pipeline(
            Settings.from_json(self.config.model_dump(mode="json", by_alias=True))
        )
        self.runner = ExperimentRunner(self.config, clock=lambda: self.now)
        self.pipeline.experiments = self.runner
        self.pipeline.stage_one.offer = self._offer
        self._rng = np.random.default_rng(seed)
        self._traffic = traffic
        self._servers = [
            _Running(champion, np.random.default_rng((seed, 1))),
            _Running(challenger, np.random.default_rng((seed, 2))),
        ]
        timeouts = self.config.champion.timeouts
        self._limit = LONGEST_SECONDS if timeouts.total is None else timeouts.total
        self._first_byte = timeouts.first_byte
        self._names = self._new_names(START)
        self._numbers = itertools.count()
        self._due: list[tuple[float, int, bytes]] = []
        self._labels: list[tuple[float, int, str, float]] = []
        self._predictions: dict[str, Prediction] = {}
        self._tick_seconds = max(1.0, 20.0 / traffic.rate)

    def close(self) -> None:
        """Delete the state."""
        self._folder.cleanup()

    @property
    def live(self) -> LiveExperiment:
        """The experiment."""
        return self.runner.live["x"]

    def run(self, requests: int) -> str:
        """Serve up to ``requests`` requests; return the verdict: "promote", "rollback" or
        "invalid" as soon as that is decided, else "continue"."""
        due = START + self._tick_seconds
        for request in self._arrivals(requests):
            while START + request.at >= due:
                verdict = self._tick(due)
                if verdict is not None:
                    return verdict
                due += self._tick_seconds
            self._serve(request)
        for _ in range(60):
            verdict = self._tick(due)
            if verdict is not None:
                return verdict
            due += self._tick_seconds
        return "continue"

    # Traffic ------------------------------------------------------------------------------------

    def _arrivals(self, requests: int) -> Iterator[Request]:
        at = 0.0
        traffic, rng = self._traffic, self._rng
        for number in range(requests):
            at += rng.exponential(1.0 / traffic.rate)
            if at > traffic.until:
                return
            user = int(rng.integers(traffic.units)) if traffic.units else number
            large = rng.random() < traffic.large
            yield Request(
                number,
                at,
                b"user-%d" % user,
                float(rng.random()),
                LARGE if large else 200,
                float(rng.random() < 0.5),
            )

    def _serve(self, request: Request) -> None:
        live = self.live
        salt = (self.config.experiments[0].salt or "x").encode()
        request_id = b"r-%d" % request.number
        by_unit = self.config.experiments[0].unit.by != "request"
        unit = request.unit if by_unit else request_id
        arm = live.allocation.arm(point(salt, unit))
        split = any(weight > 0.0 for weight in live.weights()[1:])
        weakness = 1.0
        if self._traffic.clustered:
            own = point(b"weakness", request.unit) / 2.0**64
            weakness = math.exp(self._traffic.clustered * NormalDist().inv_cdf(own))
        assigned = arm + 1 if split and arm != OUT else 0
        server = max(arm, 0) if assigned else 0
        readable = point(b"readable", request_id) / 2.0**64 >= self._traffic.binary
        self._exchange(request, request_id, unit, server, assigned, weakness, readable)
        if not split:
            self._mirror(request, request_id, weakness, readable)

    def _exchange(
        self,
        request: Request,
        request_id: bytes,
        unit: bytes,
        arm: int,
        assigned: int,
        weakness: float,
        readable: bool,
    ) -> None:
        seconds, wrong = self._servers[arm].serve(request, request.at, weakness)
        outcome = record.OK
        ends = min(seconds, self._limit_of(seconds), self._traffic.patience)
        if ends < seconds:
            outcome = record.CANCELLED if ends == self._traffic.patience else record.TIMEOUT
        elif wrong == "error":
            outcome = record.SERVER_ERROR
        age = record.OPEN_AFTER_NS / 1e9
        while assigned and age < ends:
            self._write(
                request, request_id, unit, arm, 0, record.OPEN, age, assigned, None, readable
            )
            age *= 2.0
        self._write(request, request_id, unit, arm, 0, outcome, ends, assigned, wrong, readable)

    def _mirror(self, request: Request, request_id: bytes, weakness: float, readable: bool) -> None:
        seconds, wrong = self._servers[1].serve(request, request.at, weakness)
        ends, outcome = min(seconds, self._limit_of(seconds)), record.OK
        if ends < seconds:
            outcome = record.TIMEOUT
        elif wrong == "error":
            outcome = record.SERVER_ERROR
        self._write(request, request_id, b"", 1, 1, outcome, ends, 0, wrong, readable)

    def _limit_of(self, seconds: float) -> float:
        """The time limit of a request; one that hangs has not had a first byte."""
        return self._first_byte if math.isinf(seconds) else self._limit

    def _write(
        self,
        request: Request,
        request_id: bytes,
        unit: bytes,
        arm: int,
        role: int,
        outcome: int,
        seconds: float,
        assigned: int,
        wrong: str | None,
        readable: bool,
    ) -> None:
        answer = None
        if outcome == record.OK:
            right = request.label if wrong != "wrong" else 1.0 - request.label
            answer = orjson.dumps({"predictions": [right]})
        elif outcome == record.SERVER_ERROR:
            answer = b"{}"
        readable = readable and wrong != "unreadable"
        status = {record.OK: 200, record.SERVER_ERROR: 500}.get(outcome, 0)
        encoded = encode_record(
            *(0, arm, status, role, outcome, START + request.at),
            *(round(seconds * 1e9), round(seconds * 1e9), 0, request.size, len(answer or b"")),
            *(request_id, b"", unit, b"/v1/models/m:predict", JSON),
            JSON if readable else BINARY,
            orjson.dumps({"instances": [[request.segment]]}),
            answer if readable or answer is None else b"\x00\x01" + answer,
            assigned,
        )
        end = START + request.at + seconds
        heapq.heappush(self._due, (end, next(self._numbers), b"".join(encoded[1])))
        if outcome == record.OK and point(b"label", request_id) / 2.0**64 < self._traffic.labels:
            spec = self._servers[arm].spec
            delay = spec.label_delay * self._rng.exponential()
            if wrong == "wrong":
                delay += spec.late_errors
            late = (end + delay, next(self._numbers), request_id.decode(), request.label)
            heapq.heappush(self._labels, late)

    # Labels -------------------------------------------------------------------------------------

    def _offer(self, prediction: Prediction) -> None:
        self._predictions[prediction.request_id] = prediction

    def _joined(self, now: float) -> list[Joined]:
        joined: list[Joined] = []
        while self._labels and self._labels[0][0] <= now:
            at, number, request_id, label = heapq.heappop(self._labels)
            prediction = self._predictions.pop(request_id, None)
            if prediction is not None:
                joined.append(joined_of(prediction, number, label, at))
        return joined

    # Evaluation ---------------------------------------------------------------------------------

    def _tick(self, now: float) -> str | None:
        self.now = now
        batch: list[bytes] = []
        while self._due and self._due[0][0] <= now:
            batch.append(heapq.heappop(self._due)[2])
        if batch:
            self.pipeline.take(self._names, len(batch), b"".join(batch))
        self.pipeline.flush()
        if self._traffic.labels:
            self.pipeline.take_labels(self._joined(now))
            self.pipeline.flush()
        if self.runner.tick():
            self._names = self._new_names(now)
        return self._verdict()

    def _verdict(self) -> str | None:
        contestant = self.live.contestants["candidate"]
        if contestant.rollout.phase in ("promoted", "rolled_back"):
            return "promote" if contestant.rollout.phase == "promoted" else "rollback"
        verdict = contestant.decision.verdict
        if verdict == "invalid" or self.live.declared.mode != "canary":
            return verdict if verdict != "continue" else None
        return None

    def _new_names(self, now: float) -> Names:
        live = self.live
        arms = (self.config.champion.name, "candidate")
        split = SplitNames("x", 0, live.weights(), now, live.divided_at)
        return Names(round((now - START) * 1000) + 1, (("m", "", "kserve-v1"),), arms, (split,))


def joined_of(prediction: Prediction, number: int, label: object, at: float) -> Joined:
    """A prediction with its label, which became known at unix time ``at``."""
    return Joined(
        seq=number + 1,
        request_id=prediction.request_id,
        arm=prediction.arm,
        mirrored=prediction.mirrored,
        model=prediction.model,
        share=prediction.share,
        started=prediction.started,
        outputs={name: cells[0] for name, cells in prediction.outputs.items()},
        row=0,
        label=label,
        reward=None,
        received=at,
        delay=at - prediction.started,
    )
