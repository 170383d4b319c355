"""Converts parts of a plan into arguments of the engine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from understudy.common.codecs import detect
from understudy.common.extensions import WIRE_FORMATS
from understudy.common.unreadable import why_unreadable
from understudy.loadtest.engine.pool import Open
from understudy.loadtest.engine.script import Script
from understudy.loadtest.errors import PlanError
from understudy.loadtest.gate.plan import Checks as Declared
from understudy.loadtest.gate.plan import Engine, Limits, Load, Payloads, Prompts
from understudy.loadtest.gate.target import Address
from understudy.loadtest.payloads.calls import Calls, is_call, of_messages
from understudy.loadtest.payloads.checks import Checks, format_of, rows_of
from understudy.loadtest.payloads.files import access_log, of_bodies, of_rows, recorded
from understudy.loadtest.payloads.prompts import Wanted, of_lengths
from understudy.loadtest.payloads.request import Payload, as_body
from understudy.loadtest.payloads.template import Drawer
from understudy.loadtest.payloads.traces import is_trace, read_trace
from understudy.loadtest.payloads.variables import variable
from understudy.loadtest.scenarios import shapes


def payloads_of(declared: Payloads, seed: int, grpc: bool = False) -> list[Payload]:
    """The payloads that a plan declares, to be sent in turns; ``grpc``: as calls. Raises
    PlanError."""
    secrets = {
        name: variable(value, f"payloads.headers_env.{name}")
        for name, value in declared.headers_env.items()
    }
    headers, path, count = {**declared.headers, **secrets}, declared.path, declared.count
    if declared.bodies is not None:
        payloads = of_bodies(declared.bodies, path, count, headers)
    elif declared.rows is not None:
        payloads = of_rows(
            declared.rows, declared.format, declared.rows_per_request, path, count, headers,
            declared.datatypes, declared.delimiter,
        )  # fmt: skip
    elif declared.records is not None:
        payloads = recorded(declared.records, count, headers)
    elif declared.messages is not None:
        payloads = of_messages(declared.messages, path, count, headers)
    elif declared.template is not None:
        drawer = Drawer(seed)
        payloads = [
            Payload(as_body(drawer.fill(declared.template)), path=path, headers=headers)
            for _ in range(count)
        ]
    elif declared.prompts is not None:
        payloads = _prompts(declared.prompts, path, count, headers, seed)
    else:
        payloads = [Payload(b"", path=path, headers=headers)]
    if grpc:
        calls = Calls(declared.model, declared.model_version, declared.contents == "raw")
        return [calls.of(one) for one in payloads]
    if any(is_call(one) for one in payloads):
        raise PlanError("payloads: gRPC calls need a target over gRPC: write grpc://host:port")
    if declared.method != "POST":
        payloads = [replace(one, method=declared.method) for one in payloads]
    return payloads


def _prompts(
    declared: Prompts, path: str, count: int, headers: Mapping[str, str], seed: int
) -> list[Payload]:
    traced = read_trace(declared.trace, count) if declared.trace is not None else ()
    wanted = Wanted(
        declared.model, path, count, headers, declared.input_tokens, declared.output_tokens, traced,
        declared.prefix_tokens, declared.prefixes, declared.words_per_token, declared.exact,
        declared.turns, declared.think, declared.cancelled, declared.cancel_after,
    )  # fmt: skip
    return of_lengths(wanted, seed)


def bytes_of(payloads: Sequence[Payload], address: Address) -> list[bytes]:
    """Whole HTTP requests to ``address``."""
    return [
        replace(one, path=address.path + one.path).to_bytes(address.authority) for one in payloads
    ]


def script_of(payloads: Sequence[Payload]) -> Script | None:
    """What follows which payload; None where each is sent by itself, and to its end."""
    if all(one.start and one.leaves is None for one in payloads):
        return None
    return Script(
        [number for number, one in enumerate(payloads) if one.start],
        {
            number: (one.then, payloads[one.then].think)
            for number, one in enumerate(payloads)
            if one.then is not None
        },
        {number: one.leaves for number, one in enumerate(payloads) if one.leaves is not None},
    )


def checks_of(declared: Declared, of: Payloads, payloads: Sequence[Payload]) -> Checks:
    """The checks of the responses to ``payloads``, made of what ``of`` declares. Raises
    PlanError."""
    schema = declared.schema_
    if isinstance(schema, Path):
        try:
            schema = json.loads(schema.read_text())
        except (OSError, ValueError) as error:
            why = why_unreadable(schema, error)
            raise PlanError(f"{schema}: checks.schema cannot be read: {why}") from error
    form: str = declared.format
    if form == "auto" and "format" in of.model_fields_set:
        form = next((name for name in WIRE_FORMATS if of.format.startswith(name)), "none")
        form = "none" if form == "json" else form
    formats = [None if one.method == "HEAD" else format_of(one.path, form) for one in payloads]
    rows: list[int | None] = []
    if declared.row_count == "same":
        rows = [rows_of(form, one) for form, one in zip(formats, payloads, strict=True)]
    expected = [one.expect for one in payloads]
    statuses = tuple(declared.statuses)
    return Checks(
        statuses, schema, expected, formats, declared.tolerance, rows,
        [detect.look_up(one.path)[1][1] for one in payloads],
    )  # fmt: skip


def not_looked_at(checks: Checks, count: int) -> str:
    """The sentence for the first line of a report about the answers to the ``count`` payloads that
    count by their status only, or an empty text."""
    missing = sum(not checks.looks_at(number) for number in range(count))
    if not missing:
        return ""
    which = "" if missing == count else f" to {missing:,} of {count:,} payloads"
    return (
        f"answers{which} were not looked at, only their status: set checks.format or checks.schema"
    )


def load_of(load: Load, engine: Engine, limits: Limits) -> Open:
    """The arrivals of ``load``. Raises PlanError if they exceed the limits."""
    rate, to = load.rate or 0.0, load.to or 0.0
    if load.shape == "trace":
        assert load.trace is not None
        return Open(moments=_trace(load, limits), seed=engine.seed)
    if load.shape == "ramp":
        profile = shapes.ramp(rate, to, load.seconds)
    elif load.shape == "spike":
        profile = shapes.spike(rate, to, load.seconds, load.peak_seconds)
    elif load.shape == "bursts":
        profile = shapes.bursts(rate, to, load.seconds, load.every, load.peak_seconds)
    elif load.shape == "diurnal":
        profile = shapes.diurnal(rate, to, load.seconds)
    elif load.shape == "growth":
        profile = shapes.growth(rate, to, load.seconds)
    elif load.shape in ("steps", "until-break"):
        step = (to - rate) / max(1, load.steps - 1)
        profile = shapes.steps(rate, step, load.steps, load.step_seconds)
    else:
        profile = shapes.steady(rate, load.seconds)
    if profile.highest > limits.rate:
        raise PlanError(
            f"load: {profile.highest:g}/s is above the limit of {limits.rate:g}/s (limits.rate)"
        )
    if profile.seconds > limits.seconds:
        raise PlanError(
            f"load: {profile.seconds:g} s are above the limit of {limits.seconds:g} s "
            "(limits.seconds)"
        )
    return Open(
        profile, kind=engine.arrivals, seed=engine.seed, burstiness=engine.burstiness or 1.0
    )


def _trace(load: Load, limits: Limits) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    assert load.trace is not None
    if is_trace(load.trace):
        return _moments([one.at for one in read_trace(load.trace, load.requests)], load, limits)
    try:
        with open(load.trace, "rb") as file:
            first = file.read(1)
    except IsADirectoryError:
        first = b"{"  # a folder of records; recorded() reports that it must be exported
    except OSError as error:
        raise PlanError(
            f"{load.trace}: cannot be read: {why_unreadable(load.trace, error)}"
        ) from error
    if first == b"{":
        times = [one.at or 0.0 for one in recorded(load.trace, load.requests, {})]
    else:
        times = access_log(load.trace, load.requests)
    return _moments(times, load, limits)


def _moments(
    times: Sequence[float], load: Load, limits: Limits
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Times of a trace from its start, at the speed that is asked for. Raises PlanError if they
    exceed the limits."""
    moments = np.sort(np.array(times, np.float64))
    if np.array_equal(moments, np.floor(moments)):
        # Whole seconds, as in access logs: spread evenly within each.
        _, counts = np.unique(moments, return_counts=True)
        moments += np.concatenate([np.arange(n) / n for n in counts])
    moments = (moments - moments[0]) / load.speed
    if moments[-1] > limits.seconds:
        raise PlanError(
            f"{load.trace}: lasts {moments[-1]:,.0f} s at speed {load.speed:g}, the limit is "
            f"{limits.seconds:g} s (limits.seconds)"
        )
    busiest = int(np.bincount(moments.astype(np.int64)).max())
    if busiest > limits.rate:
        raise PlanError(
            f"{load.trace}: {busiest:,} requests in one second, the limit is {limits.rate:g}/s "
            "(limits.rate)"
        )
    values: np.ndarray[tuple[int], np.dtype[np.float64]] = moments
    return values
