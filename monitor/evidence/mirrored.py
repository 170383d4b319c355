"""Copies: champion and challengers on the same request, brought together and compared."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

from understudy.monitor.codecs import Table
from understudy.monitor.config.experiment import Compare
from understudy.monitor.evidence.arms import Arms
from understudy.monitor.evidence.joiner import PairJoiner
from understudy.monitor.evidence.observe import NAN, Observation, Observer
from understudy.monitor.records.record import ROLE_MIRROR, Record
from understudy.shadow import comparison
from understudy.shadow.assignment import POINTS, point, threshold

_CHAMPION, _CHALLENGER, _AGAIN = 0, 1, 2
_MOST_INPUTS = 2048
_MOST_WAITING = 20_000
_WAITED = 300.0
Redact = Callable[[Mapping[str, list[object]]], dict[str, object]]


class MirrorComparison:
    """Pairs that are whole are put on ``pairs``, by challenger, with the time at which the last of
    their answers was there; what is to be remembered of a comparison on ``notes``. ``redact`` takes
    out what nobody may read."""

    def __init__(
        self,
        compare: Compare,
        arms: Arms,
        challengers: Sequence[str],
        observer: Observer,
        redact: Redact,
    ) -> None:
        self._arms = arms
        self.waiting: dict[str, PairJoiner[Observation]] = {
            name: PairJoiner(_MOST_WAITING) for name in challengers
        }
        self.pairs: dict[str, list[tuple[Any, ...]]] = {name: [] for name in challengers}
        """(at, id, values of the champion, of the challenger)"""
        self.origin = (0, 0)
        """Of the next record; see :class:`Observation`."""
        self.restoring: Mapping[str, Set[tuple[int, int]]] | None = None
        """While what waited is read again: the origins of what did, by challenger."""
        self.notes: dict[str, list[tuple[float, bytes, dict[str, Any]]]] = {
            name: [] for name in challengers
        }
        self._observer = observer
        self._redact = redact
        self._keep = compare.keep
        self._noise_below = threshold(compare.noise)
        self._worst: dict[str, list[tuple[float, float, bytes]]] = {
            name: [] for name in challengers
        }
        self._inputs: dict[bytes, Table] = {}
        self._newest = 0.0
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
        for name in self.waiting:
            if at < threshold(self._arms.mirror_rate.get(name, 0.0)):
                if observed is None:
                    observed = self._observer.observe(record, self._arms.champion, answer)
                    if isinstance(of_request, Table) and self._keep:
                        self._remember(record.request_id, of_request)
                self._half(name, record.request_id, _CHAMPION, observed, at)

    def take_copy(self, record: Record, arm: str, answer: object) -> None:
        """An answer to a copy."""
        at = point(self._arms.salt, record.request_id)
        if arm == self._arms.again and arm:
            observed = self._observer.observe(record, arm, answer)
            for name in self.waiting:
                self._half(name, record.request_id, _AGAIN, observed, at)
            return
        if arm in self.waiting:
            observed = self._observer.observe(record, arm, answer)
            self._half(arm, record.request_id, _CHALLENGER, observed, at)

    def take_one(
        self, challenger: str, record: Record, arm: str, of_request: object, answer: object
    ) -> None:
        """One half of a pair with a challenger, of which is known that it is one."""
        observed = self._observer.observe(record, arm, answer)
        side = _CHALLENGER if record.role == ROLE_MIRROR else _CHAMPION
        if side == _CHAMPION and isinstance(of_request, Table) and self._keep:
            self._remember(record.request_id, of_request)
        self._half(challenger, record.request_id, side, observed, POINTS)

    def newest(self, ended: float) -> None:
        """Pairs were put together elsewhere; the last of them ended at that unix time."""
        self._newest = max(self._newest, ended)

    def _half(self, challenger: str, key: bytes, side: int, observed: Observation, at: int) -> None:
        if self.restoring is not None and self.origin not in self.restoring.get(challenger, ()):
            return
        observed.origin = self.origin
        self._newest = max(self._newest, observed.ended)
        twice = bool(self._arms.again) and at < self._noise_below
        halves = self.waiting[challenger].add(key, side, observed, 3 if twice else 2)
        if halves is not None and {_CHAMPION, _CHALLENGER} <= halves.keys():
            self._pair(challenger, halves[_CHAMPION], halves[_CHALLENGER], halves.get(_AGAIN))

    def expire(self, before: float) -> None:
        """Give up answers that ended before that unix time and have waited since."""
        for name, pairing in self.waiting.items():
            for key, halves in pairing.oldest():
                ended = max(half.ended for half in halves.values())
                if ended >= before:
                    break
                pairing.give_up(key)
                self.notes[name].append((ended + _WAITED, key, {"lost": 1}))

    def drain_lost(self) -> None:
        """Say how many were given up for want of room."""
        for name, pairing in self.waiting.items():
            if pairing.lost:
                self.notes[name].append((self._newest, b"", {"lost": pairing.lost}))
                pairing.lost = 0

    def waiting_for(self) -> dict[str, list[tuple[int, int]]]:
        """By challenger, where the records are that wait for their counterpart."""
        return {
            name: [half.origin for _, halves in pairing.oldest() for half in halves.values()]
            for name, pairing in self.waiting.items()
        }

    def _pair(
        self,
        name: str,
        champion: Observation,
        challenger: Observation,
        again: Observation | None,
    ) -> None:
        own = differs = NAN
        request_id = champion.request_id
        ended = max(champion.ended, challenger.ended)
        if again is not None:
            ended = max(ended, again.ended)
        if champion.answer is not None and challenger.answer is not None:
            found = comparison.compare(champion.answer, challenger.answer, self._agree)
            differs = 0.0 if found.agree else 1.0
            note: dict[str, Any] = {}
            if again is not None and again.answer is not None:
                noise = comparison.compare(champion.answer, again.answer, self._agree)
                own = 0.0 if noise.agree else 1.0
                note["noise"] = [sorted(found.fields), sorted(noise.fields)]
            elif not self._arms.again:
                own = 0.0
            if not found.agree and self._among_the_worst(name, found.severity, ended, request_id):
                inputs = self._inputs.get(request_id)
                note["worst"] = [
                    found.severity,
                    champion.started,
                    request_id.decode("latin-1"),
                    self._explained(found),
                    self._redact(columns_of(inputs)) if inputs is not None else {},
                    self._redact(champion.answer),
                    self._redact(challenger.answer),
                ]
            if note:
                self.notes[name].append((ended, request_id, note))
        self.pairs[name].append(
            (
                ended,
                request_id,
                {**champion.values, "disagreement": own},
                {**challenger.values, "disagreement": differs},
            )
        )

    def _explained(self, found: comparison.Comparison) -> str:
        """The differences in plain words, with the values that people may see."""
        fields = {}
        for name, field in found.fields.items():
            if field.example is not None:
                first, second = (self._redact({name: [cell]})[name] for cell in field.example)
                field = replace(field, example=(first, second))
            fields[name] = field
        return replace(found, fields=fields).explain()

    def _among_the_worst(self, name: str, severity: float, at: float, request_id: bytes) -> bool:
        """Whether this may be one of the worst of all; what is surely none need not be told."""
        worst = self._worst[name]
        mine = (-severity, at, request_id)
        if len(worst) >= self._keep:
            if not self._keep:
                return False
            if all(other[0] <= -severity and other[1:] < mine[1:] for other in worst):
                return False
        insort(worst, mine)
        del worst[self._keep :]
        return True

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
