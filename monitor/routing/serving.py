"""Who serves, and how well: computed from the workers' plan and their statistics, and from nothing
else. The console, ``top``, the metrics, readiness and the alerts show what is computed here.

Roles come from the plan that the workers follow: a challenger that was promoted serves, and the
champion then stands by. What an arm should serve is compared with what it does serve.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from understudy.common.units import percent
from understudy.monitor.records import record
from understudy.monitor.records.record import OUTCOMES
from understudy.monitor.routing.plan import Plan, Split
from understudy.shadow.assignment import POINTS, Allocation

NOT_ERRORS = frozenset(
    name for outcome, name in enumerate(OUTCOMES) if record.SIDES.get(outcome) in (None, "client")
)
"""Outcomes that are not the service's fault; the others are errors."""
CHARGED = frozenset(OUTCOMES[outcome] for outcome in record.CHARGED)
"""Errors of the model server, or of the network to it: what is ours is not charged to it."""
NOT_SENT = frozenset(OUTCOMES[outcome] for outcome in record.NOT_SENT)
"""Outcomes of mirrored requests that were never sent."""
BREAKER_STATES = ("closed", "open", "half_open")
ROLES = ("serving", "mirrored", "standby", "unused")
"""It should serve clients; it gets mirrored requests; it serves only when another arm fails; none
of these."""
STATES = ("ok", "failing", "partly_down", "down", "no_traffic")
"""``down``: it answers nothing, or its circuit breaker is open on all workers; ``partly_down``: on
some of them; ``failing``: most of its requests fail; ``no_traffic``: nothing to judge it by."""
MINUTE = 60.0
ANSWERED = frozenset(OUTCOMES[outcome] for outcome in record.ANSWERED)
"""Outcomes of requests to which the model server answered."""
_FEWEST = 10
_FAILING = 0.5
_LEAST_SHARE = 1e-9

Counts = Mapping[tuple[tuple[str, str], ...], int]
"""Counts by label set, as in the shared statistics."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What the workers counted in the last minute; ``unreachable`` are arms to which connections
    failed, and that answered nothing, in the last seconds. Breakers are the states of the workers'
    circuit breakers, by arm."""

    requests: Counts = field(default_factory=dict)
    mirror: Counts = field(default_factory=dict)
    diverted: Counts = field(default_factory=dict)
    serving_breakers: Mapping[str, Sequence[int]] = field(default_factory=dict)
    mirror_breakers: Mapping[str, Sequence[int]] = field(default_factory=dict)
    unreachable: frozenset[str] = frozenset()
    credentials_removed: Counts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Share:
    """An arm's part of the requests of a model: ``planned`` by the routes, ``served`` in the last
    minute (None without traffic), both in [0, 1]. ``diverted`` requests were meant for it in that
    minute, and another arm served them. ``experiments`` are those that plan a part for it."""

    model: str
    version: str
    planned: float
    served: float | None
    requests: int
    errors: int
    diverted: int
    experiments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ArmService:
    """One arm. ``challenger`` is its place in the configuration, ``role`` its place in the routes
    (:data:`ROLES`), ``state`` one of :data:`STATES`; ``not_sent`` are mirrored requests of the last
    minute that were not sent, by reason. ``refused`` are requests of that minute from which
    credentials of clients were removed, if it answered most of all with a client error.
    ``covers``: requests that another arm should have served came to the champion instead."""

    arm: str
    challenger: bool
    role: str
    state: str
    shares: tuple[Share, ...]
    serving_breaker: Mapping[str, int]
    mirror_breaker: Mapping[str, int]
    mirror_rate: float
    not_sent: Mapping[str, int]
    refused: int = 0
    covers: bool = False

    @property
    def planned(self) -> float:
        """The largest part of a model's requests that it should serve."""
        return max((share.planned for share in self.shares), default=0.0)

    @property
    def diverted(self) -> int:
        """Requests of the last minute that it should have served."""
        return sum(share.diverted for share in self.shares)

    def describe(self) -> str:
        """What the arm does, in words; models are named when there are several."""
        if self.role == "mirrored":
            part = "" if self.mirror_rate >= 1.0 else f" of {percent(self.mirror_rate)}"
            return f"gets mirrored requests{part}"
        if self.role == "unused":
            return "gets no requests"
        parts = []
        for share in self.shares:
            of = f" of {share.model}" if len(self.shares) > 1 else ""
            if share.planned:
                parts.append(f"should serve {_percent(share.planned)}{of}")
            elif share.served and self.covers:
                parts.append(f"stands in for {_percent(share.served)}{of}")
        return ", ".join(parts) or "on standby"

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "description": self.describe(),
            "configured_as": "challenger" if self.challenger else "champion",
            "role": self.role,
            "state": self.state,
            "diverted_1m": self.diverted,
            "not_sent_1m": dict(self.not_sent),
            "serving_breaker": dict(self.serving_breaker),
            "shares": [
                {
                    "model": share.model,
                    "version": share.version,
                    "planned": share.planned,
                    "served": share.served,
                    "experiments": list(share.experiments),
                }
                for share in self.shares
            ],
        }


@dataclass(frozen=True, slots=True)
class Service:
    """All arms, the champion first. ``problems`` are why clients are not served as they should be;
    ``warnings`` are faults that clients do not notice yet."""

    arms: tuple[ArmService, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    def arm(self, name: str) -> ArmService:
        """The arm of that name. Raises KeyError."""
        for one in self.arms:
            if one.arm == name:
                return one
        raise KeyError(name)


def service_of(
    plan: Plan, seen: Observed, phases: Mapping[tuple[str, str], str] | None = None
) -> Service:
    """Who serves under ``plan``, and how well by what was ``seen``.

    ``phases`` is the phase of a rollout by experiment and arm, for the texts.
    """
    rates = {c.upstream.name: c.rate for c in plan.challengers}
    planned = _planned(plan)
    counts = _Counts(seen.requests)
    # The arm of the champion's second answers is not one that could serve.
    names = [plan.champion.name, *(c.upstream.name for c in plan.challengers if c.serving)]
    arms = tuple(
        _arm(name, seen, counts, planned, rates.get(name, 0.0) if number else 0.0, number > 0)
        for number, name in enumerate(names)
    )
    return Service(
        arms,
        tuple(_problems(arms, planned)),
        tuple(_warnings(arms, phases or {})),
    )


class _Counts:
    """Requests of clients, by what is asked for: with many models and arms the series are many."""

    def __init__(self, requests: Counts) -> None:
        self.of_model: dict[tuple[str, str], int] = {}
        self.of_arm: dict[str, dict[str, int]] = {}
        """By arm and outcome."""
        self.of_share: dict[tuple[str, str, str], dict[str, int]] = {}
        """By model, version and arm, and outcome."""
        for have, value in requests.items():
            labels = dict(have)
            if labels.get("role") != "primary":
                continue
            model, version = labels.get("model", ""), labels.get("version", "")
            arm, outcome = labels.get("arm", ""), labels.get("outcome", "")
            self.of_model[model, version] = self.of_model.get((model, version), 0) + value
            for found in (
                self.of_arm.setdefault(arm, {}),
                self.of_share.setdefault((model, version, arm), {}),
            ):
                found[outcome] = found.get(outcome, 0) + value


_Planned = Mapping[tuple[str, str], Mapping[str, tuple[float, tuple[str, ...]]]]
"""By model and version, and arm: the share, and the experiments that plan it."""


def _planned(plan: Plan) -> _Planned:
    found = {}
    for index, model in enumerate(plan.models):
        shares: dict[str, tuple[float, tuple[str, ...]]] = {}
        for split in plan.splits:
            if split.model == index:
                for arm, share in _of_split(plan, split):
                    before, experiments = shares.get(arm, (0.0, ()))
                    shares[arm] = before + share, (*experiments, split.experiment)
        rest = max(0.0, 1.0 - sum(share for share, _ in shares.values()))
        shares[plan.champion.name] = (rest if rest > _LEAST_SHARE else 0.0), ()
        found[model.name, model.version] = shares
    return found


def _of_split(plan: Plan, split: Split) -> Iterator[tuple[str, float]]:
    """The challengers' shares of the model's units."""
    width = (split.slice[1] - split.slice[0]) / POINTS * (1.0 - split.holdout)
    allocation = Allocation(split.starts, split.arms)
    for number, arm in enumerate(plan.arms):
        share = width * allocation.size(number) / POINTS
        if number and share > 0.0:
            yield arm, share


def _arm(
    name: str,
    seen: Observed,
    counts: _Counts,
    planned: _Planned,
    rate: float,
    challenger: bool,
) -> ArmService:
    serving = _states(seen.serving_breakers.get(name, ()))
    mirror = _states(seen.mirror_breakers.get(name, ()))
    shares = []
    for (model, version), of_arms in planned.items():
        share, experiments = of_arms.get(name, (0.0, ()))
        totals = counts.of_model.get((model, version), 0)
        outcomes_here = counts.of_share.get((model, version, name), {})
        mine = sum(outcomes_here.values())
        errors = mine - sum(outcomes_here.get(outcome, 0) for outcome in NOT_ERRORS)
        diverted = sum(_sum(seen.diverted, arm=name, experiment=e) for e in experiments)
        shares.append(
            Share(
                model,
                version,
                share,
                mine / totals if totals else None,
                mine,
                errors,
                diverted,
                experiments,
            )
        )
    serves = any(share.planned for share in shares)
    outcomes = _by_outcome(seen.mirror, name)
    requests = counts.of_arm.get(name, {})
    if serves:
        role = "serving"
        state = _state(requests, serving, name in seen.unreachable)
    elif not challenger:
        role = "standby"
        state = _state(requests, {}, name in seen.unreachable)
    elif rate > 0.0:
        role = "mirrored"
        sent = {o: n for o, n in outcomes.items() if o not in NOT_SENT}
        state = _state(sent, mirror, name in seen.unreachable)
    else:
        role = "unused"
        state = "no_traffic"
    answers = outcomes if role == "mirrored" else requests
    refused = answers.get("client_error", 0)
    refuses = refused >= _FEWEST and refused >= _FAILING * sum(answers.values())
    return ArmService(
        name,
        challenger,
        role,
        state,
        tuple(shares),
        serving if serves else {},
        mirror if rate > 0.0 else {},
        rate,
        {o: n for o, n in outcomes.items() if o in NOT_SENT and n},
        _sum(seen.credentials_removed, arm=name) if refuses else 0,
        not challenger and bool(_sum(seen.diverted)),
    )


def _states(found: Sequence[int]) -> dict[str, int]:
    """Numbers of workers by the state of their circuit breaker."""
    return {
        state: found.count(number) for number, state in enumerate(BREAKER_STATES) if number in found
    }


def _state(outcomes: Mapping[str, int], breaker: Mapping[str, int], unreachable: bool) -> str:
    total = sum(outcomes.values())
    answered = sum(outcomes.get(outcome, 0) for outcome in ANSWERED)
    broken = sum(count for state, count in breaker.items() if state != "closed")
    if unreachable or (broken and (broken == sum(breaker.values()) or not answered)):
        return "down"
    if broken:
        return "partly_down"
    if not total:
        return "no_traffic"
    errors = sum(outcomes.get(outcome, 0) for outcome in CHARGED)
    if total >= _FEWEST and errors >= _FAILING * total:
        return "failing"
    return "ok"


def _problems(arms: Sequence[ArmService], planned: _Planned) -> Iterator[str]:
    champion = arms[0]
    if champion.role == "serving" and champion.state == "down":
        yield f"champion {champion.arm!r} cannot be reached"
        return
    by_name = {one.arm: one for one in arms}
    for (model, _), shares in planned.items():
        servers = [by_name[arm] for arm, (share, _) in shares.items() if share and arm in by_name]
        if servers and all(one.state == "down" for one in (*servers, champion)):
            names = " and ".join(repr(one.arm) for one in (*servers, champion))
            yield f"nothing serves {model!r}: {names} are down"


def _warnings(arms: Sequence[ArmService], phases: Mapping[tuple[str, str], str]) -> Iterator[str]:
    champion = arms[0]
    for one in arms:
        if one.refused:
            yield (
                f"{one.arm!r} answers most requests with a client error (4xx), and credentials "
                f"of clients were removed from {one.refused:,} of them in the last minute: give it "
                "credentials of its own in `headers`, or set `credentials: forward`"
            )
        if one.role == "standby" and one.state == "down":
            yield (
                f"champion {one.arm!r} cannot be reached: it serves nothing by plan, and cannot "
                "take over when another arm fails"
            )
        if one.role == "mirrored" and one.state in ("down", "failing", "partly_down"):
            yield f"challenger {one.arm!r} {_what(one, one.mirror_breaker)}: {_MIRRORED[one.state]}"
        if one.role != "serving" or one.state in ("ok", "no_traffic"):
            continue
        if one is champion:
            if one.state != "down":
                yield f"champion {one.arm!r} {_what(one, {})}"
            continue
        for share in one.shares:
            if not share.planned:
                continue
            why = [
                f"experiment {experiment!r}, {phases[experiment, one.arm].replace('_', ' ')}"
                for experiment in share.experiments
                if phases.get((experiment, one.arm))
            ]
            by = f" ({'; '.join(why)})" if why else ""
            text = (
                f"{one.arm!r} should serve {_percent(share.planned)} of {share.model!r}{by}, but "
                f"{_what(one, one.serving_breaker)}"
            )
            if share.diverted:
                text += (
                    f": {champion.arm!r} served {share.diverted:,} of its requests in the last "
                    "minute"
                )
            yield text


_MIRRORED = {
    "down": "it is not compared",
    "partly_down": "it is not compared with all requests",
    "failing": "clients are not affected",
}


def _what(one: ArmService, breaker: Mapping[str, int]) -> str:
    """The fault of an arm, in words."""
    broken = sum(count for state, count in breaker.items() if state != "closed")
    if broken:
        workers = sum(breaker.values())
        return f"is {one.state.replace('_', ' ')}, its circuit breaker is open on {broken} of " + (
            f"{workers} worker{'s' if workers > 1 else ''}"
        )
    if one.state == "down":
        return "is down, it cannot be reached"
    return "fails most of its requests"


def _percent(share: float) -> str:
    return percent(share, 3)


def _sum(counts: Counts, **labels: str) -> int:
    """Sum of the counts whose labels include the given ones."""
    wanted = labels.items()
    return sum(value for have, value in counts.items() if wanted <= dict(have).items())


def _by_outcome(counts: Counts, arm: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for have, value in counts.items():
        labels = dict(have)
        if labels.get("arm") == arm:
            outcome = labels.get("outcome", "")
            found[outcome] = found.get(outcome, 0) + value
    return found
