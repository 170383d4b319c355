"""Copies: champion and challengers on the same request, brought together and compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from monitor.codecs import Table
from monitor.config.experiment import Compare
from monitor.experiments.contestant import Arms, Contestant
from monitor.experiments.observe import NAN, Observation, Observer
from monitor.record import Record
from shadow import comparison
from shadow.assignment import point, threshold

_CHAMPION, _CHALLENGER, _AGAIN = 0, 1, 2
_MOST_INPUTS = 2048
Redact = Callable[[Mapping[str, list[object]]], dict[str, object]]


class Copies:
    """Pairs that are whole go to their contestant; ``redact`` takes out what nobody may read."""

    def __init__(
        self,
        compare: Compare,
        arms: Arms,
        contestants: Mapping[str, Contestant],
        observer: Observer,
        redact: Redact,
    ) -> None:
        self._arms = arms
        self._contestants = contestants
        self._observer = observer
        self._redact = redact
        self._keep = compare.keep
        self._noise_below = threshold(compare.noise)
        self._inputs: dict[bytes, Table] = {}
        self._agree = comparison.Rules(
            compare.absolute,
            compare.relative,
            compare.ulp,
            tuple(compare.ignore),
            tuple(compare.unordered),
            compare.top_k,
        )

    def take_champion(self, record: Record, of_request: object, answer: object) -> None:
        """The champion's answer to a client."""
        at = point(self._arms.salt, record.request_id)
        observed: Observation | None = None
        for name, contestant in self._contestants.items():
            if at < threshold(self._arms.mirror_rate.get(name, 0.0)):
                if observed is None:
                    observed = self._observer.observe(record, self._arms.champion, answer)
                    if isinstance(of_request, Table) and self._keep:
                        self._remember(record.request_id, of_request)
                self._half(contestant, record.request_id, _CHAMPION, observed, at)

    def take_copy(self, record: Record, arm: str, answer: object) -> None:
        """An answer to a copy."""
        at = point(self._arms.salt, record.request_id)
        if arm == self._arms.again and arm:
            observed = self._observer.observe(record, arm, answer)
            for contestant in self._contestants.values():
                self._half(contestant, record.request_id, _AGAIN, observed, at)
            return
        theirs = self._contestants.get(arm)
        if theirs is not None:
            observed = self._observer.observe(record, arm, answer)
            self._half(theirs, record.request_id, _CHALLENGER, observed, at)

    def _half(
        self, contestant: Contestant, key: bytes, side: int, observed: Observation, at: int
    ) -> None:
        twice = bool(self._arms.again) and at < self._noise_below
        halves = contestant.pairing.add(key, side, observed, 3 if twice else 2)
        if halves is not None and {_CHAMPION, _CHALLENGER} <= halves.keys():
            self._pair(contestant, halves[_CHAMPION], halves[_CHALLENGER], halves.get(_AGAIN))

    def _pair(
        self,
        contestant: Contestant,
        champion: Observation,
        challenger: Observation,
        again: Observation | None,
    ) -> None:
        own = differs = NAN
        inputs = self._inputs.get(champion.request_id)
        if champion.answer is not None and challenger.answer is not None:
            found = comparison.compare(champion.answer, challenger.answer, self._agree)
            differs = 0.0 if found.agree else 1.0
            if again is not None and again.answer is not None:
                noise = comparison.compare(champion.answer, again.answer, self._agree)
                own = 0.0 if noise.agree else 1.0
                contestant.noise.update(found, noise)
            elif not self._arms.again:
                own = 0.0
            if not found.agree and contestant.worst.wants(found.severity):
                contestant.worst.offer(
                    found.severity,
                    champion.started,
                    champion.request_id.decode("latin-1"),
                    found.explain(),
                    self._redact(columns_of(inputs)) if inputs is not None else {},
                    self._redact(champion.answer),
                    self._redact(challenger.answer),
                )
        contestant.gathered.pairs.append(
            (
                {**champion.values, "disagreement": own},
                {**challenger.values, "disagreement": differs},
            )
        )

    def _remember(self, request_id: bytes, inputs: Table) -> None:
        """Inputs of the last requests, for those whose answers will turn out to differ."""
        if len(self._inputs) >= _MOST_INPUTS:
            for key in list(self._inputs)[: _MOST_INPUTS // 2]:
                del self._inputs[key]
        self._inputs[request_id] = inputs


def columns_of(table: Table) -> dict[str, list[object]]:
    """The columns of a decoded payload, by name."""
    width = len(table.names)
    return {name: table.values[i::width] for i, name in enumerate(table.names)}
