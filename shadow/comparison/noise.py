"""Differences beyond the champion's own.

A model that answers the same request differently every time would make any challenger look
different. For a sample of requests the champion is asked twice, and the challenger's difference
counts only as far as it comes more often than the champion's from itself (the idea of Twitter's
Diffy, here as a paired sequential test).
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from understudy.shadow.comparison.answers import Comparison
from understudy.shadow.sequential import PairedTest
from understudy.shadow.state import Converter, Saved, Stateful

MOST_FIELDS = 64
_REST = "(other outputs)"


def _dump_tests(tests: dict[str, PairedTest]) -> dict[str, list[int]]:
    return {name: [t.wins, t.losses, t.ties] for name, t in tests.items()}


def _load_tests(name: str, state: Any, _: Any) -> dict[str, PairedTest]:
    found = {}
    for output, (wins, losses, ties) in {"": (0, 0, 0), **state}.items():
        test = found[output] = PairedTest(alternative="greater")
        test.update_counts(wins, losses, ties)
    return found


class NoiseCancelling(Stateful):
    """Per output, and for the whole answer under the name "": D = 1 when only the challenger
    differed from the champion, -1 when only the champion differed from itself, else 0."""

    tests: Saved[Annotated[dict[str, PairedTest], Converter(_dump_tests, _load_tests)]]

    def __init__(self) -> None:
        self.tests = {"": PairedTest(alternative="greater")}

    @property
    def compared(self) -> int:
        """Requests that the champion answered twice."""
        return self.tests[""].pairs

    def update(self, challenger: Comparison, again: Comparison) -> None:
        """One request: the challenger's answer, and the champion's second, against its first."""
        before = self.compared
        self._add("", before, not challenger.agree, not again.agree)
        rest = [False, False]
        for name in {*challenger.fields, *again.fields}:
            pair = (name in challenger.fields, name in again.fields)
            if name in self.tests or len(self.tests) < MOST_FIELDS:
                self._add(name, before, *pair)
            else:
                rest = [rest[0] or pair[0], rest[1] or pair[1]]
        if any(rest):
            self._add(_REST, before, *rest)

    def _add(self, name: str, before: int, differs: bool, own: bool) -> None:
        test = self.tests.get(name)
        if test is None:
            test = self.tests[name] = PairedTest(alternative="greater")
        ties = before - test.pairs  # all requests before, in which this output agreed
        test.update_counts(
            int(differs and not own), int(own and not differs), ties + int(differs == own)
        )

    def fields(self) -> list[dict[str, Any]]:
        """Per output: how often it differs beyond the champion's own, strongest evidence first."""
        n = self.compared
        found = [
            {
                "output": name,
                "requests": n,
                "challenger_only": test.wins,
                "champion_only": test.losses,
                "log_e": test.log_e,
            }
            for name, test in self.tests.items()
            if name
        ]
        return sorted(found, key=lambda item: -float(str(item["log_e"])))

    def merge(self, other: Self) -> Self:
        """The counts of both."""
        both = type(self)()
        both.tests = dict(self.tests)
        for name, test in other.tests.items():
            both.tests[name] = both.tests[name].merge(test) if name in both.tests else test
        return both
