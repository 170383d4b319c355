"""What the readers of other projects' files of objectives share."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from understudy.monitor.config.runbooks import PUBLIC
from understudy.monitor.config.slo import PLAIN, RESERVED
from understudy.monitor.errors import ConfigError
from understudy.monitor.slo.compile import notices_of
from understudy.monitor.slo.compiled import Compiled
from understudy.monitor.slo.model import WINDOW, Slo
from understudy.monitor.slo.promql import either_edge, plain_sum
from understudy.monitor.slo.scope import Scope

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
SCOPE = Scope(identity=())
"""Queries say themselves which series they are about."""
_TEXTS = r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'"
_SELECTOR = re.compile(
    r"(?:sum\s*\()?\s*"
    rf"([a-zA-Z_:][a-zA-Z0-9_:]*\s*(?:\{{(?:[^{{}}\"']|{_TEXTS})*\}})?)"
    r"\s*\)?"
)

_EDGE = re.compile(r"[{,]\s*le\s*=(~?)\s*(?P<mark>[\"'])(.*?)(?P=mark)")
_DOT = re.compile(r"\\+\.")


class Fault(Exception):
    """An error in a document, with the path of the key."""

    def __init__(self, path: str, message: str) -> None:
        self.path = path
        super().__init__(message)


def joined(where: str, path: str) -> str:
    """The path of a key inside the document ``where``."""
    return f"{where}.{path}" if path else where


def mapping(of: Mapping[str, Any], key: str, path: str = "") -> Mapping[str, Any]:
    """The mapping below ``key``. Raises Fault."""
    result = of.get(key)
    if not isinstance(result, Mapping):
        raise Fault(f"{path}{key}", "must be a mapping")
    return result


def name_of(of: Mapping[str, Any], key: str, path: str = "") -> str:
    """The name below ``key``. Raises Fault."""
    result = of.get(key)
    if not isinstance(result, str) or not NAME.fullmatch(result):
        raise Fault(
            f"{path}{key}", f"not a valid name: {result!r} (use letters, digits, dots and dashes)"
        )
    return result


def labels_of(given: object, name: str, notices: list[str]) -> dict[str, str]:
    """Labels for series and alerts; those that Prometheus or the rules cannot take are left out."""
    found: dict[str, str] = {}
    for key, value in given.items() if isinstance(given, Mapping) else ():
        if not isinstance(key, str) or not PLAIN.fullmatch(key) or RESERVED.fullmatch(key):
            notices.append(f"{name}: left out: the label {key!r}")
        else:
            values = value if isinstance(value, list) else [value]
            found[key] = ",".join(map(str, values))
    return found


def left_out(of: object, used: Iterable[str], path: str = "") -> list[str]:
    """The keys of a mapping that are not used."""
    known = set(used)
    return [f"{path}{key}" for key in of if key not in known] if isinstance(of, Mapping) else []


def over_windows(query: str, counter: bool, path: str) -> str:
    """The query as one series over each window. Raises Fault."""
    query = either_edge(query)
    if WINDOW in query:
        return plain_sum(query)
    over = "rate" if counter else "avg_over_time"
    return f"sum({over}({selector_of(query, path)}[{WINDOW}]))"


def selector_of(query: str, path: str) -> str:
    """The selector that a query is, or is the sum of. Raises Fault."""
    match = _SELECTOR.fullmatch(query)
    if match is None:
        raise Fault(
            path,
            f"{query!r} has no {WINDOW} and is not a selector or a sum of one, so its rate cannot "
            f"be computed over several windows; write it as sum(rate(metric[{WINDOW}]))",
        )
    return match[1].strip()


def different(one: str, total: str, path: str) -> None:
    """Raise Fault where the events to count are all events: such an objective says nothing."""
    if "".join(one.split()) == "".join(total.split()):
        raise Fault(path, "is the same query as total, so that every event counts the same")


def one_bucket(good: str, path: str) -> None:
    """Raise Fault unless each edge that a query of good responses names is one bucket, below
    +Inf: over several buckets a response counts several times, and none would ever be late."""
    edges = _EDGE.findall(good)
    if not edges:
        raise Fault(
            path,
            'selects every bucket, so that a response counts several times: add its limit, le="…"',
        )
    for pattern, _, written in edges:
        names = [_DOT.sub(".", one) for one in written.split("|")] if pattern else [written]
        try:
            values = {float(name) for name in names}
        except ValueError:
            values = set()
        if len(values) != 1:
            raise Fault(
                path, f"le={pattern}{written!r} is not the edge of one bucket: write le with it"
            )
        if math.isinf(values.pop()):
            raise Fault(path, "every response is in the bucket +Inf: write le with the limit")


def target_of(percent: object) -> float | None:
    """The share of a percentage, as 0.999 of 99.9; None unless it is a number between 0 and 100,
    both excluded, also in the 12 digits to which it is read: without a budget there is nothing to
    burn."""
    if isinstance(percent, bool) or not isinstance(percent, (int, float)) or not 0 < percent < 100:
        return None
    target = float(f"{percent / 100:.12g}")
    return target if target < 1.0 else None


def rest(good: str, total: str) -> str:
    """Bad events, from good ones, whose series may not exist before the first one."""
    return f"{total} - ({good} or 0 * {total})"


Read = Callable[[Mapping[str, Any], list[str]], list[Slo]]
"""Reads the objectives of a document, and adds notices. Raises Fault."""


def compiled(
    documents: Sequence[Any], source: str, runbooks: str | None, read: Read, name: str
) -> Compiled:
    """The objectives of all documents of the format ``name``.

    Raises ConfigError with all that cannot be read.
    """
    problems: list[tuple[str, str]] = []
    notices: list[str] = []
    slos: list[Slo] = []
    for number, one in enumerate(documents):
        try:
            if not isinstance(one, Mapping):
                raise Fault("", f"must be a mapping, as in {name}")
            slos += read(one, notices)
        except Fault as fault:
            problems.append((joined(f"[{number}]", fault.path), str(fault)))
    return whole(slos, notices, problems, source, runbooks)


def whole(
    slos: Sequence[Slo],
    notices: Sequence[str],
    problems: list[tuple[str, str]],
    source: str,
    runbooks: str | None,
) -> Compiled:
    """The result of a file. Raises ConfigError if there are problems."""
    if not slos and not problems:
        problems.append(("", "contains no SLO"))
    ids = [slo.id for slo in slos]
    twice = sorted({one for one in ids if ids.count(one) > 1})
    problems += [("", f"duplicate objective {one!r}") for one in twice]
    if problems:
        raise ConfigError(source, problems)
    found = (*notices, *(notice for slo in slos for notice in notices_of(slo)))
    return Compiled(slos[0].service, tuple(slos), (), found, runbooks or PUBLIC, scope=SCOPE)
