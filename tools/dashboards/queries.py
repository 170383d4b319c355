"""Selectors and expressions that several dashboards use, so that they mean the same everywhere."""

from __future__ import annotations

from tools.dashboards import board
from understudy.monitor.records.record import OPEN, OUTCOMES
from understudy.monitor.routing.serving import NOT_ERRORS

WHERE = board.WHERE
OF_MODEL = f'{WHERE}, model=~"$model", version=~"$version"'
OF_ARM = f'{OF_MODEL}, arm=~"$arm"'
LIVE = f'{OF_ARM}, role="primary"'
"""Requests of clients; copies for challengers have the role ``mirror``."""
FAILED = f'outcome!~"{"|".join(sorted(NOT_ERRORS - {OUTCOMES[OPEN]}))}"'
"""What a client would call a failure of the service: nothing that it caused itself."""


def named(family: str, /, where: str = WHERE, **more: str) -> str:
    """A selector of ``understudy_`` + ``family``.

    ``more`` are further labels: a value that begins with ``~`` is a regular expression, one that
    begins with ``!`` is what the label is not.
    """
    results = [where]
    for label, value in more.items():
        operator = {"~": "=~", "!": "!="}.get(value[0], "=")
        results.append(f'{label}{operator}"{value.lstrip("~!")}"')
    return f"understudy_{family}{{{', '.join(results)}}}"


def rate(family: str, /, where: str = WHERE, by: str = "", **more: str) -> str:
    """Per second, summed over replicas and over whatever is not in ``by``."""
    grouped = f"sum by ({by})" if by else "sum"
    return f"{grouped} (rate({named(family, where, **more)}[$__rate_interval]))"


def increase(family: str, where: str = WHERE, by: str = "") -> str:
    """Per point of the picture, summed likewise."""
    grouped = f"sum by ({by})" if by else "sum"
    return f"{grouped} (increase({named(family, where)}[$__rate_interval]))"


def share(part: str, whole: str) -> str:
    """``part / whole``, and nothing instead of NaN while the whole is nothing."""
    return f"({part}) / ({whole} > 0)"


def quantile(at: str, where: str = LIVE, window: str = "$window", by: str = "arm") -> str:
    """A quantile of the sidecars' own sketches, within 1 %; the worst replica's."""
    result = named(
        "request_duration_quantile_seconds", where, outcome="all", window=window, quantile=at
    )
    return f"max by ({by}) ({result})"


def failed_share(by: str = "") -> str:
    """Share of clients' requests that failed."""
    every = rate("requests_total", LIVE, by=by)
    # Without a single failure there is no series of one: that is 0, not "no data".
    return share(f"{rate('requests_total', f'{LIVE}, {FAILED}', by=by)} or 0 * {every}", every)


def dropped_share() -> str:
    """Share of the exchanges that the evaluation never got to see."""
    lost = rate("dropped_total", stage="handoff")
    every = rate("records_eligible_total")
    return share(f"{lost} or 0 * {every}", every)


def missing_share() -> str:
    """Share of missing values, by model and feature."""
    rows = rate("feature_rows_total", OF_MODEL, by="model")
    missing = rate("feature_missing_total", OF_MODEL, by="model, feature")
    return f"{missing} / on (model) group_left () ({rows} > 0)"


# Latencies come as classic histograms, and as native ones if asked for. Prometheus keeps either or
# both; what is asked here is right for all three.


def cells(family: str, where: str) -> str:
    """Per second, by bucket: for a heat map."""
    classic = rate(family + "_bucket", where, by="le")
    return f"{classic} or ({rate(family, where)} unless on () {classic})"


def of_buckets(at: str, family: str, where: str, by: str = "") -> str:
    """A quantile over all replicas. Native buckets are narrower, so they come first."""
    classic = rate(family + "_bucket", where, by=f"le, {by}" if by else "le")
    native = rate(family, where, by=by)
    return f"histogram_quantile({at}, {native}) or histogram_quantile({at}, {classic})"


def mean(family: str, where: str, by: str) -> str:
    """Over all replicas."""
    classic = share(rate(family + "_sum", where, by=by), rate(family + "_count", where, by=by))
    native = rate(family, where, by=by)
    return f"({classic}) or {share(f'histogram_sum({native})', f'histogram_count({native})')}"
