"""What the demo says: a line now and then, and a summary at the end."""

from __future__ import annotations

from typing import Any

from examples.flights.acts import Act
from examples.flights.replay import Tally
from examples.flights.silent import SilentFailure


def milliseconds(seconds: float | None) -> str:
    """``4.2 ms``; a dash for None."""
    if seconds is None:
        return "–"
    return f"{seconds * 1e3:.1f} ms" if seconds < 0.1 else f"{seconds * 1e3:.0f} ms"


def quantile(values: list[float], p: float) -> float | None:
    """The smallest value that at least a share ``p`` does not exceed."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(p * len(ordered)))]


def share_late(status: dict[str, Any], arm: str) -> float | None:
    """The mean predicted probability of being late, of one arm."""
    for result in status.get("predictions", []):
        if result["arm"] == arm and result["prediction"] == "p_late":
            mean = result.get("mean")
            return float(mean) if mean is not None else None
    return None


def arm_text(arm: dict[str, Any], window: str) -> str:
    """``champion p50 4.2 ms  p99 9.0 ms  p99.9 12 ms``."""
    shown = arm["windows"][window]
    texts = [f"{q} {milliseconds(shown[key])}" for q, key in QUANTILES]
    return f"{arm['arm']:<10} " + "  ".join(texts)


QUANTILES = (("p50", "p50"), ("p99", "p99"), ("p99.9", "p99_9"))


def line(second: float, tally: Tally, status: dict[str, Any]) -> str:
    """One look at the running service."""
    champion, challenger = status["arms"][:2]
    breaker = ", ".join(challenger["mirror"]["breaker"]) or "–"
    late = [share_late(status, arm["arm"]) for arm in (champion, challenger)]
    return (
        f"{second:4.0f} s  {tally.date}  {champion['windows']['10s']['rate'] or 0:4.0f}/s  "
        f"{arm_text(champion, '10s')} | {arm_text(challenger, '10s')} | breaker {breaker} | "
        f"predicted late {percent(late[0])} / {percent(late[1])} | client errors {len(tally.errors)}"
    )


def percent(value: float | None) -> str:
    """``23.4 %``; a dash for None."""
    return "–" if value is None else f"{value:.1%}".replace("%", " %")


def summary(
    tally: Tally,
    status: dict[str, Any],
    training: dict[str, Any],
    acts: list[Act],
    silent: SilentFailure,
    details: bool = False,
) -> str:
    """What happened, for a person, on one screen; with ``details`` for one who wants to know."""
    champion, challenger = status["arms"][:2]
    outcomes = challenger["mirror"]["outcomes"]
    copies = sum(outcomes.values())
    lost = copies - outcomes.get("ok", 0)
    quality = training["quality"]
    lines = [
        "",
        "What happened",
        f"  {tally.sent:,} flights were sent, {tally.answered:,} answered; "
        f"errors that a client saw: {len(tally.errors)}",
        f"  champion    {_times(champion)}   AUC {quality['champion']['auc']}",
        f"  challenger  {_times(challenger)}   AUC {quality['challenger']['auc']}",
        f"  mirrored {copies:,}; unanswered {lost:,}, while the challenger was dead: no client noticed",
        "What was decided, looked at every second, and valid all the same",
        *(text for act in acts for text in act.summary(details)),
        "What failed silently",
        *silent.summary(details),
    ]
    if details:
        mean = sum(tally.latencies) / len(tally.latencies) if tally.latencies else None
        records = status["records"]
        outcome = ", ".join(f"{name} {count:,}" for name, count in outcomes.items())
        late = [percent(share_late(status, arm["arm"])) for arm in (champion, challenger)]
        lines += [
            "Details",
            f"  seen by the clients   mean {milliseconds(mean)}  "
            + "  ".join(
                f"{name} {milliseconds(quantile(tally.latencies, p))}"
                for name, p in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))
            ),
            f"  mirrored requests: {outcome}",
            f"  predicted late, on average: champion {late[0]}, challenger {late[1]}; "
            f"late in truth: {percent(training['late_rate'])}",
            f"  records: {records['eligible']:,} eligible = {records['sent']:,} sent + "
            f"{sum(records['dropped'].values()):,} dropped",
        ]
    return "\n".join(lines)


def _times(arm: dict[str, Any]) -> str:
    shown = arm["windows"]["start"]
    return "  ".join(f"{q} {milliseconds(shown[key])}" for q, key in QUANTILES)
