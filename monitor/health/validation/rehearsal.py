"""Sends the validation cases periodically, and stores the results.

They go through a worker like other requests, but by its probe socket
(``understudy.monitor.proxy.probe``): they are not counted, mirrored or tested for drift. Without a
worker, as from the command line, they go directly to each model server. A header marks them, for
the server's log.
"""

from __future__ import annotations

import asyncio
import http.client
import logging
import os
import random
import socket
import ssl
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from understudy.common.codecs import Table, decode_exchange
from understudy.monitor.config.compile import rewrite_of, rewrites_of
from understudy.monitor.config.fields import server_address
from understudy.monitor.config.header_values import MissingValueError, read
from understudy.monitor.config.model import Config, Upstream
from understudy.monitor.config.model import Model as ModelConfig
from understudy.monitor.config.payloads import path_of, spec_of
from understudy.monitor.errors import ValidationCaseError
from understudy.monitor.findings.finding import Contribution, Signal
from understudy.monitor.health.validation.cases import Answer, Case, check, load_cases
from understudy.monitor.proxy.probe import ARM, sockets
from understudy.monitor.proxy.rewriting import Rewriter

log = logging.getLogger(__name__)

SOURCE = "validation"
MARK = "x-understudy-validation"
_MOST_FAILURES = 20
_JITTER = 0.1


@dataclass
class Group:
    """Results of one kind of case on one arm, of the last round and of all."""

    passed: int = 0
    failed: int = 0
    totals: Counter[str] = field(default_factory=Counter)
    once_passed: bool = False
    """Whether the whole group has passed in some round."""
    failures: list[tuple[str, str]] = field(default_factory=list)
    """(case, what was wrong) of the last round."""
    seconds: float = 0.0

    @property
    def ratio(self) -> float | None:
        """Share that passed in the last round."""
        total = self.passed + self.failed
        return self.passed / total if total else None


class Validation:
    """Rounds over all cases, for the champion and each challenger. Call :meth:`run` as a task.

    ``run_dir`` contains the workers' probe sockets; None: send directly."""

    def __init__(self, config: Config, run_dir: Path | None = None) -> None:
        self.run_dir = run_dir
        self._turn = 0
        self.groups: dict[tuple[str, str], Group] = {}
        """By (arm, kind)."""
        self.rounds = 0
        self.last: float | None = None
        self.error: str | None = None
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Apply another configuration; results of removed arms are deleted."""
        self.config = config
        arms = [config.champion.name, *(c.name for c in config.challengers)]
        self.groups = {key: group for key, group in self.groups.items() if key[0] in arms}

    async def run(self) -> None:
        """Run rounds at the configured interval, one at a time, until it is cancelled."""
        while True:
            settings = self.config.validation
            if settings is None:
                await asyncio.sleep(1.0)
                continue
            try:
                await asyncio.to_thread(self.round)
            except Exception as error:  # a fault of ours must not end the rounds
                log.exception("validation failed")
                self.error = repr(error)
            jitter = random.uniform(-_JITTER, _JITTER)  # noqa: S311  # replicas take turns
            pause = settings.every * (1.0 + jitter)
            until = time.monotonic() + pause
            while time.monotonic() < until and self.config.validation == settings:
                await asyncio.sleep(min(1.0, settings.every))

    def round(self) -> bool:
        """Send every case to every arm now; returns whether all passed. Blocks."""
        settings = self.config.validation
        if settings is None:
            return True
        try:
            cases = load_cases(Path(settings.cases))
            model = self._model(settings.model)
        except ValidationCaseError as error:
            if self.error != str(error):
                log.error("validation: %s", error)
            self.error = str(error)
            return False
        self.error = None
        upstreams: list[Upstream] = [self.config.champion, *self.config.challengers]
        for upstream in upstreams:
            self._round_of(upstream, model, cases, 1.0 / settings.max_rate, settings.timeout)
        self.rounds += 1
        self.last = time.time()
        return all(group.failed == 0 for group in self.groups.values())

    def _model(self, name: str | None) -> ModelConfig:
        for model in self.config.models:
            if name in (None, model.name) and model.match is None:
                return model
        match = next((model for model in self.config.models if model.match is not None), None)
        if match is not None and name is not None:
            return match.named(name)
        text = "name one" if name is None else f"model {name!r} is not configured"
        raise ValidationCaseError(f"validation.model: {text}")

    def _round_of(
        self,
        upstream: Upstream,
        model: ModelConfig,
        cases: Sequence[Case],
        gap: float,
        timeout: float,
    ) -> None:
        fresh: dict[str, Group] = {}
        for case in cases:
            answers = []
            for body in case.bodies:
                began = time.monotonic()
                answers.append(self._send(upstream, model, body, timeout))
                time.sleep(max(0.0, gap - (time.monotonic() - began)))
            wrong = check(case, tuple(answers))
            group = fresh.setdefault(case.kind, Group())
            group.passed += not wrong
            group.failed += bool(wrong)
            group.seconds += sum(answer.seconds for answer in answers)
            if wrong and len(group.failures) < _MOST_FAILURES:
                group.failures.append((case.name, wrong[:500]))
        for kind, group in fresh.items():
            before = self.groups.get((upstream.name, kind))
            if before is not None:
                group.totals, group.once_passed = before.totals, before.once_passed
            group.totals["passed"] += group.passed
            group.totals["failed"] += group.failed
            group.once_passed |= not group.failed
            self.groups[upstream.name, kind] = group

    def _probe_sockets(self) -> list[Path]:
        settings = self.config.validation
        if self.run_dir is None or settings is None or settings.direct:
            return []
        return sockets(self.run_dir)

    def _send(self, upstream: Upstream, model: ModelConfig, body: bytes, timeout: float) -> Answer:
        """Send through the workers in turn, skipping sockets that a dead worker has left behind."""
        rewriter = Rewriter(rewrites_of(upstream), rewrite_of(upstream))
        own, of_body = rewriter.target(path_of(model).encode())
        if of_body:
            # A worker streams the bodies of cases, so it leaves them as they are.
            rewritten = rewriter.body(body)
            if rewritten is None:
                return Answer(0, None, 0.0, "not sent: the case does not name the model")
            body = rewritten
        probes = self._probe_sockets()
        self._turn += 1
        for index in range(len(probes)):
            probe = probes[(self._turn + index) % len(probes)]
            connection = _UnixConnection(str(probe), timeout)
            try:
                connection.connect()
            except OSError:
                continue
            headers = {
                ARM.decode(): upstream.name,
                "Host": upstream.host or server_address(upstream.url).authority,
            }
            return _request(connection, path_of(model), headers, model, body)
        try:
            headers = {name: read(one, os.environ) for name, one in upstream.headers.items()}
        except MissingValueError as error:
            return Answer(0, None, 0.0, f"not sent: {error}")
        if upstream.host:
            headers["Host"] = upstream.host
        path = server_address(upstream.url).path + own.decode()
        return _request(_direct_connection(upstream, timeout), path, headers, model, body)

    def signals(self) -> list[Signal]:
        """Groups of cases that have passed before and fail now."""
        settings = self.config.validation
        result = []
        for (arm, kind), group in self.groups.items():
            if not group.failed or not group.once_passed:
                continue
            champion = arm == self.config.champion.name
            result.append(
                Signal(
                    key=f"validation/{arm}/{kind}",
                    kind="validation",
                    model=self._model(settings.model if settings is not None else None).name,
                    version="",
                    segment=arm,
                    severity="critical" if champion else "warning",
                    title=f"{group.failed} of {group.passed + group.failed} {kind} cases fail on "
                    f"{arm}: {group.failures[0][0]}: {group.failures[0][1]}"[:500],
                    since=self.last,
                    features=tuple(
                        Contribution(name[:200], 1.0 / group.failed, why[:500])
                        for name, why in group.failures[:10]
                    ),
                    rule="every case must pass, as it did before",
                    guarantee="exact: the expected responses are known",
                    advice="Check which build is served, and whether its preprocessing changed.",
                )
            )
        return result

    def summary(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "enabled": self.config.validation is not None,
            "rounds": self.rounds,
            "way": "workers" if self._probe_sockets() else "direct",
            "last": self.last,
            "error": self.error,
            "groups": [
                {
                    "arm": arm,
                    "kind": kind,
                    "passed": group.passed,
                    "failed": group.failed,
                    "pass_ratio": group.ratio,
                    "seconds": round(group.seconds, 6),
                    "totals": dict(group.totals),
                    "failures": [{"case": n, "wrong": why} for n, why in group.failures],
                }
                for (arm, kind), group in self.groups.items()
            ],
        }


class _UnixConnection(http.client.HTTPConnection):
    """A connection to a Unix socket: a worker's probe socket, or a model server."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Over the Unix socket. Raises OSError."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except OSError:
            self.sock.close()
            raise


def _direct_connection(upstream: Upstream, timeout: float) -> http.client.HTTPConnection:
    """A connection to the model server itself."""
    address = server_address(upstream.url)
    if address.socket is not None:
        return _UnixConnection(address.socket, timeout)
    if not address.secure:
        return http.client.HTTPConnection(address.host, address.port, timeout=timeout)
    tls = upstream.tls
    context = ssl.create_default_context(cafile=tls.ca if tls else None)
    if tls is not None and not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls is not None and tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key, password="")
    return http.client.HTTPSConnection(address.host, address.port, timeout=timeout, context=context)


def _request(
    connection: http.client.HTTPConnection,
    path: str,
    headers: dict[str, str],
    model: ModelConfig,
    body: bytes,
) -> Answer:
    """Send one request over ``connection``, which is closed afterwards."""
    began = time.monotonic()
    try:
        sent = {"Content-Type": "application/json", MARK: "1", **headers}
        connection.request("POST", path, body, sent)
        response = connection.getresponse()
        payload = response.read(16 * 1024 * 1024)
    except (OSError, http.client.HTTPException) as error:
        return Answer(0, None, time.monotonic() - began, f"no answer: {error!r}")
    finally:
        connection.close()
    lines = "\r\n".join(f"{name}: {value}" for name, value in response.getheaders())
    decoded = decode_exchange(
        spec_of(model), path.encode(), b"content-type: application/json", body, response.status,
        lines.encode("latin-1", "replace"), payload,
    )  # fmt: skip
    table = decoded.predictions if isinstance(decoded.predictions, Table) else None
    return Answer(response.status, table, time.monotonic() - began)
