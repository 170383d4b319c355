"""Indicators over our own metrics: expressions for bad events and for all events.

Each has a trial: the series that a service would export, from which unit tests for promtool are
generated.
"""

from __future__ import annotations

from collections.abc import Mapping

from understudy.common.token_buckets import FIRST_TOKEN_EDGES, PER_TOKEN_EDGES
from understudy.common.units import duration, number, percent, spoken
from understudy.monitor.slo.model import SECONDS, WINDOW, Events, Level, Slices, Stream
from understudy.monitor.slo.promql import selector
from understudy.monitor.slo.scope import Scope
from understudy.monitor.stats.buckets import CLASSIC_EDGES

ERRORS = (
    *("server_error", "timeout", "upstream_connect", "upstream_reset", "overload", "garbage"),
    *("model_overload", "stream_error", "truncated", "shutdown"),
)
"""Outcomes that are the service's fault: of its model server, the network to it, or its limits."""
NOT_ASKED = ("cancelled", "rejected", "incomplete", "client_stalled")
"""Outcomes that count neither as good nor as bad: the client's doing."""
INVALID = ("empty", "error_response", "not_json", "truncated", "wrong_shape")
"""Reasons why a response holds no prediction that a client could use."""


_OF_REQUEST = ("model", "version", "arm")


def _rate(scope: Scope, metric: str, labels: Mapping[str, str]) -> str:
    return f"sum{scope.by()}(rate({selector(metric, labels)}[{WINDOW}]))"


def _counted(scope: Scope, events: str, known: str, *apart: str) -> str:
    """The rate of events, with those before the first sample of a series that begins late.

    ``rate()`` needs two samples, so it ignores with what value a series begins: a burst of errors
    between two scrapes would be lost. Sidecars export zeros from the start; older ones do not, and
    theirs begins with the first error. Such a series counts in full if there are series of
    ``known`` that differ from it in the labels ``apart`` at most and are older than the window:
    one whose process, or whose labels of the scrape, are new as well may begin with an old count.
    """
    rate = f"rate({events}[{WINDOW}])"
    begun = (
        f"({events} unless {events} offset {WINDOW} and ignoring ({', '.join(apart)}) "
        f"{known} offset {WINDOW}) / {SECONDS}"
    )
    # After a restart within the window the rate is more.
    return f"sum{scope.by()}(\n  ({begun} unless {begun} < {rate})\n  or {rate}\n)"


def availability(scope: Scope, errors: tuple[str, ...] = ERRORS) -> Events:
    """The share of responses to clients without an error; ``errors`` are the bad outcomes."""
    metric = "understudy_requests_total"
    of_clients = {**scope.labels(*_OF_REQUEST), "role": "primary"}
    example = {**scope.example(*_OF_REQUEST), "role": "primary", "protocol": "oip"}
    return Events(
        bad=_counted(
            scope,
            selector(metric, {**of_clients, "outcome=~": "|".join(errors)}),
            selector(metric, of_clients),
            "outcome",
        ),
        late=True,
        total=_counted(
            scope,
            selector(metric, {**of_clients, "outcome!~": "|".join(NOT_ASKED)}),
            selector(metric, of_clients),
            "outcome",
        ),
        unit="requests",
        good=f"a response with an outcome other than {', '.join(errors)}",
        exactness="exact: every request of every worker is counted",
        trial=(
            Stream(selector(metric, {**example, "outcome": "ok"}), 1.0, 0.0),
            Stream(selector(metric, {**example, "outcome": errors[0]}), 0.0, 1.0),
        ),
    )


def latency(scope: Scope, within: float, by: str = "auto", more: tuple[float, ...] = ()) -> Events:
    """The share of successful responses within ``within`` seconds.

    ``by``: ``edge`` reads the bucket that ends at the limit, ``interpolate`` splits the requests of
    the bucket around the limit evenly, ``strict`` counts all of them as too slow, ``native`` uses
    native histograms; ``auto`` is ``edge`` when the histogram has that edge, else ``interpolate``.
    ``more`` are the sidecar's edges beyond the default ones: the latencies of its ``objectives``.
    Raises ValueError when the histogram has no suitable edge.
    """
    return _within(
        scope,
        "understudy_request_duration_seconds",
        {**scope.labels(*_OF_REQUEST), "role": "primary", "outcome": "ok"},
        {**scope.example(*_OF_REQUEST), "role": "primary", "protocol": "oip", "outcome": "ok"},
        sorted({*CLASSIC_EDGES, *more}),
        within,
        by,
        f"a successful response within {spoken(within)}",
    )


TOKEN_TIMES = {
    "ttft": (
        "understudy_llm_time_to_first_token_seconds",
        FIRST_TOKEN_EDGES,
        "an answer whose first token comes within",
    ),
    "tpot": (
        "understudy_llm_time_per_output_token_seconds",
        PER_TOKEN_EDGES,
        "an answer whose time per output token is at most",
    ),
}
"""By indicator: metric, its edges, and what is good."""


def token_time(scope: Scope, kind: str, within: float, by: str = "auto") -> Events:
    """The share of a language model's answers whose time to the first token, or time per output
    token, is within ``within`` seconds; ``by`` as of :func:`latency`, without ``native``. Raises
    ValueError when the histogram has no suitable edge.

    Answers without that time do not count: those that failed have an objective of their own.
    """
    metric, edges, good = TOKEN_TIMES[kind]
    arm = {"arm": scope.arm or "champion"}
    return _within(
        scope,
        metric,
        {**scope.labels(*_OF_REQUEST), **arm},
        {**scope.example(*_OF_REQUEST), **arm},
        list(edges),
        within,
        by,
        f"{good} {spoken(within)}",
    )


def _within(
    scope: Scope,
    metric: str,
    served: Mapping[str, str],
    example: Mapping[str, str],
    edges: list[float],
    within: float,
    by: str,
    good_is: str,
) -> Events:
    """The share of the values of a histogram that are at most ``within``."""
    if by == "auto":
        by = "edge" if within in edges else "interpolate"

    def bucket(edge: float | None) -> str:
        return _rate(
            scope, f"{metric}_bucket", {**served, "le": "+Inf" if edge is None else _le(edge)}
        )

    def stream(edge: float | None) -> Stream:
        le = "+Inf" if edge is None else _le(edge)
        slow = edge is None or edge > within
        name = f"{metric}_bucket"
        # In a trial, good requests are in the fastest bucket, bad ones in the slowest.
        known = {**example, "le": le}
        return Stream(selector(name, known), 1.0, 1.0 if slow and edge is None else 0.0)

    total = _rate(scope, f"{metric}_count", served)
    counted = Stream(selector(f"{metric}_count", example), 1.0, 1.0)
    if by == "native":
        whole = _rate(scope, metric, served)
        good = f"histogram_fraction(0, {number(within)}, {whole})"
        return Events(
            bad=f"(1 - {good}) * histogram_count({whole})",
            total=f"histogram_count({whole})",
            unit="requests",
            good=good_is,
            sparse=False,
            exactness="interpolated within native buckets that are 9 % wide",
        )
    if by == "edge":
        if within not in edges:
            raise ValueError(
                f"{spoken(within)} is not a bucket boundary of the histogram ({_list(edges)}); add "
                "it to the sidecar's `objectives`, or use `by: interpolate`"
            )
        return Events(
            bad=f"{total} - {bucket(within)}",
            total=total,
            unit="requests",
            good=good_is,
            sparse=False,
            exactness=_exact(within, edges),
            trial=(stream(within), stream(None), counted),
        )
    if by not in ("interpolate", "strict"):
        raise ValueError(f"{by!r} is not one of auto, edge, interpolate, strict, native")
    low = max((edge for edge in edges if edge <= within), default=None)
    high = min((edge for edge in edges if edge > within), default=None)
    if low is None and by == "strict":
        raise ValueError(f"{spoken(within)} is below the first boundary, {spoken(edges[0])}")
    if high is None:
        raise ValueError(
            f"{spoken(within)} is above the last boundary, {spoken(edges[-1])}: add it to the "
            "sidecar's `objectives`, which adds a boundary"
        )
    begin = low or 0.0
    name = f"the {spoken(begin)} to {spoken(high)} bucket"
    if by == "strict":
        return Events(
            bad=f"{total} - {bucket(low)}",
            total=total,
            unit="requests",
            good=good_is,
            sparse=False,
            exactness=f"an upper bound: everything in {name} counts as too slow",
            trial=(stream(low), stream(high), stream(None), counted),
        )
    part = (within - begin) / (high - begin)
    upper = f"{number(part)} * {bucket(high)}"
    good = f"{number(1 - part)} * {bucket(low)} + {upper}" if low is not None else upper
    trial = (stream(high), stream(None), counted)
    return Events(
        bad=f"{total} - ({good})",
        total=total,
        unit="requests",
        good=good_is,
        sparse=False,
        exactness=(
            f"interpolated: {percent(part)} of the requests in {name} count as good; the error is "
            "at most the content of that bucket"
        ),
        # In a trial the bucket around the limit must be empty.
        trial=(stream(low), *trial) if low is not None else (),
    )


def _exact(within: float, edges: list[float]) -> str:
    if within in CLASSIC_EDGES or not set(CLASSIC_EDGES) <= set(edges):
        return "exact: the limit is a bucket boundary"
    return "the limit is a bucket boundary, counted from the sketch: within 0.55 % of it"


def _le(edge: float) -> str:
    text = number(edge)
    return text if "." in text or "e" in text else f"{text}.0"


def _list(edges: list[float]) -> str:
    return ", ".join(number(edge) for edge in edges)


def latency_quantile(scope: Scope, quantile: float, at_most: float, window: str = "1m") -> Slices:
    """The share of time in which a latency quantile over a rolling window is at most ``at_most``
    seconds, by the sketch's gauge, which is accurate to 1 %; the worst replica counts."""
    metric = "understudy_request_duration_quantile_seconds"
    more = {"role": "primary", "outcome": "ok", "window": window, "quantile": _le(quantile)}
    labels = {**scope.labels(*_OF_REQUEST), **more}
    example = {**scope.example(*_OF_REQUEST), **more}
    return Slices(
        bad=f"max{scope.by()}({selector(metric, labels)} > bool {number(at_most)})",
        good=f"the p{number(100 * quantile)} of the last {window} is at most {spoken(at_most)}",
        exactness="the quantile is within 1 %, at any limit; counts time, not requests",
        trial=(Level(selector(metric, example), at_most / 2, at_most * 2),),
    )


def valid_predictions(scope: Scope) -> Events:
    """The share of successful responses with a readable prediction."""
    arm = {"arm": scope.arm or "champion"}
    bad = {**scope.labels(*_OF_REQUEST), **arm}
    example = {**scope.example(*_OF_REQUEST), **arm}
    invalid = "understudy_undecodable_total"
    requests = "understudy_requests_total"
    served = {"role": "primary", "protocol": "oip", "outcome": "ok"}
    return Events(
        bad=_counted(
            scope,
            selector(invalid, {**bad, "part": "response", "reason=~": "|".join(INVALID)}),
            selector(requests, {**bad, "role": "primary", "outcome": "ok"}),
            *("part", "reason", "role", "protocol", "outcome"),
        ),
        late=True,
        total=_rate(scope, requests, {**bad, "outcome": "ok"}),
        unit="responses",
        good="a successful response with a readable prediction",
        exactness="a lower bound if records are dropped or too large: what is not decoded "
        "counts as valid",
        trial=(
            Stream(selector(requests, {**example, **served}), 1.0, 1.0),
            Stream(
                selector(invalid, {**example, "part": "response", "reason": INVALID[2]}), 0.0, 1.0
            ),
        ),
    )


def _rows(scope: Scope, metric: str, labels: Mapping[str, str]) -> str:
    return f"sum{scope.by('model', 'version')}(rate({selector(metric, labels)}[{WINDOW}]))"


def _seen(metric: str, labels: Mapping[str, str]) -> str:
    """Series that existed at any time in the window, as a rate counts them."""
    return f"present_over_time({selector(metric, labels)}[{WINDOW}])"


def _by_model(scope: Scope, series: str) -> str:
    return f"count{scope.by('model', 'version')}({series})"


def complete_features(scope: Scope, feature: str = "") -> Events:
    """The share of feature values that are present: of one feature, or of all (``feature`` "")."""
    of_model = ("model", "version")
    one = {"feature": feature} if feature else {}
    missing, rows = "understudy_feature_missing_total", "understudy_feature_rows_total"
    labels, example = scope.labels(*of_model), scope.example(*of_model)
    seen = _seen(missing, {**labels, **one})
    known = _by_model(scope, f"count{scope.by('model', 'version', 'feature')}({seen})")
    return Events(
        bad=_counted(
            scope, selector(missing, {**labels, **one}), selector(rows, labels), "feature"
        ),
        late=True,
        # Each model has its own features; a removed model keeps those it had.
        total=f"sum{scope.by()}({_rows(scope, rows, labels)} * {known})",
        unit="values",
        good=f"a value of {feature} that is present" if feature else "a value that is present",
        exactness="exact for decoded rows",
        trial=(
            Stream(selector(rows, example), 1.0, 1.0),
            Stream(selector(missing, {**example, "feature": feature or "x"}), 0.0, 1.0),
        ),
    )


def kept_rules(scope: Scope, feature: str = "", rule: str = "") -> Events:
    """Rows that keep the rules of the baseline: all of them, or those of a feature or kind."""
    of_model = ("model", "version")
    chosen = {key: value for key, value in (("feature", feature), ("rule", rule)) if value}
    broken, rows = "understudy_feature_violations_total", "understudy_watched_rows_total"
    labels, example = scope.labels(*of_model), scope.example(*of_model)
    whole = bool(feature and rule)
    total = _rate(scope, rows, labels)
    bad = _counted(
        scope, selector(broken, {**labels, **chosen}), selector(rows, labels), "feature", "rule"
    )
    if chosen:  # only of models that have such a rule
        has = _by_model(scope, _seen(broken, {**labels, **chosen}))
        total = f"sum{scope.by()}({_rows(scope, rows, labels)} and {has})"
    what = "".join(f" of {value}" for value in (feature, rule) if value)
    known = {**example, "feature": feature or "x", "rule": rule or "range"}
    return Events(
        # A row that breaks two rules counts twice; it cannot be worse than bad.
        bad=bad if whole else f"({bad} <= {total}) or ({total} < {bad})",
        total=total,
        unit="rows",
        good=f"a row that satisfies the rules{what}",
        exactness="exact"
        if whole
        else "an upper bound: a row that violates two rules counts twice",
        late=True,
        trial=(
            Stream(selector(rows, example), 1.0, 1.0),
            Stream(selector(broken, known), 0.0, 1.0),
        ),
    )


def performance(
    scope: Scope, metric: str, bound: str, at_least: float | None, at_most: float | None = None
) -> Slices:
    """Time during which a bound of the model's performance is within its limit; the worst replica
    counts."""
    name = "understudy_performance_estimate"
    more = {"metric": metric, "bound": bound}
    labels = {**scope.labels("model", "version"), **more}
    example = selector(name, {**scope.example("model", "version"), **more})
    if (at_least is None) == (at_most is None):
        raise ValueError("give either at_least or at_most")
    limit = at_most or 0.0
    if at_least is not None:
        test, level = f"< bool {number(at_least)}", Level(example, at_least + 0.01, at_least - 0.05)
    else:
        test, level = f"> bool {number(limit)}", Level(example, limit * 0.9, limit * 1.5 + 0.01)
    limited = f"at least {number(at_least)}" if at_least is not None else f"at most {number(limit)}"
    exact = "the bound is anytime-valid"
    if bound == "lower" and at_least is not None:
        exact += "; with few labels it is low, so a new model counts as bad"
    return Slices(
        bad=f"max{scope.by()}({selector(name, labels)} {test})",
        good=f"{f'the {bound} bound of ' if bound != 'estimate' else ''}{metric} is {limited}",
        exactness=exact,
        trial=(level,),
    )


def freshness(scope: Scope, within: float) -> Slices:
    """Time during which labels came within so many seconds: on average over the last ``within``,
    and at all, as long as predictions wait for them."""
    arm = scope.labels("arm")
    example = scope.example("arm")
    delays, waiting = "understudy_feedback_delay_seconds", "understudy_feedback_predictions"
    looks_back = max(60.0, round(within))
    window = duration(looks_back)
    came = f"sum{scope.by()}(increase({selector(delays + '_count', arm)}[{window}]))"
    late = f"sum{scope.by()}(increase({selector(delays + '_sum', arm)}[{window}])) / ({came} > 0)"
    return Slices(
        # None came although there were predictions that could have got one by now.
        bad=(
            f"({late} > bool {number(within)})\nor\n"
            f"(sum{scope.by()}({selector(waiting, arm)} offset {window}) > bool 0)"
        ),
        good=f"labels arrive within {spoken(within)} after their prediction",
        exactness=f"the mean delay of labels in the last {spoken(within)}",
        lag=looks_back,
        trial=(
            Level(selector(waiting, example), 100.0, 100.0),
            Stream(selector(delays + "_count", example), 1.0, 0.0),
            Stream(selector(delays + "_sum", example), within / 4, 0.0),
        ),
    )


def cost(scope: Scope, at_most: float) -> Slices:
    """Time during which a prediction costs at most so much, as the sidecar's configuration prices
    it; the dearest replica counts."""
    name = "understudy_cost_per_prediction"
    arm = {**scope.labels("arm"), "arm": scope.arm or "champion"}
    example = {**scope.example("arm"), **arm}
    return Slices(
        bad=f"max{scope.by()}({selector(name, arm)} > bool {number(at_most)})",
        good=f"a prediction costs at most {number(at_most)}",
        exactness="an estimate from prices and the mean latency over five minutes",
        trial=(Level(selector(name, example), at_most / 2, at_most * 2),),
    )
