"""An experiment behind its own first stage, for tests, with records and labels to feed it."""

from __future__ import annotations

from typing import Any

from understudy.common.codecs import Reason, Table, Undecodable
from understudy.monitor.config.experiment import Experiment as Declared
from understudy.monitor.evidence.arms import Arms, SplitShares
from understudy.monitor.evidence.block_columns import BlockColumns
from understudy.monitor.evidence.blocks import Builder
from understudy.monitor.evidence.collector import EvidenceCollector
from understudy.monitor.experiments.live import LiveExperiment
from understudy.monitor.labels.store import Joined
from understudy.monitor.records import record as records
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.record import Record
from understudy.shadow import rollout

ARMS = ("champion", "candidate")
NAMES = Names(1, (("m", "1", "auto"),), (*ARMS, "champion-again"))
NOW = 1_000_000.0


MOST = 64
"""Records in a block."""


class Fed(LiveExperiment):
    """An experiment behind its own first stage, which takes record by record.

    They reach the evidence in blocks, as those of a worker do; what changes the shares or the names
    ends a block.
    """

    def __init__(self, declared: Declared, arms: Arms, redact: Any) -> None:
        super().__init__(declared, arms, NOW)
        self.collector = EvidenceCollector(declared, arms, redact)
        self._builder = Builder("", "", 1)
        self._waiting = 0
        self._shares: SplitShares | None = None
        self._names = NAMES

    def take(
        self,
        one: Record,
        arm: str,
        shares: SplitShares | None,
        inputs: Table | None,
        answer: Table | None,
        names: Names = NAMES,
        unread: Reason = Reason.NOT_JSON,
    ) -> None:
        """Without an ``answer``, it cannot be read because it is ``unread``."""
        if (shares, names) != (self._shares, self._names) or self._waiting == MOST:
            self.hand_over()
        self._shares, self._names = shares, names
        self._waiting += 1
        one.arm = names.arms.index(arm)
        self._builder.add(
            names,
            one,
            inputs or Undecodable(Reason.EMPTY),
            answer or Undecodable(unread),
            NOW,
        )

    def hand_over(self) -> None:
        """Give the evidence what was taken."""
        for block in self._builder.flush(NOW, everything=True):
            self.collector.take(BlockColumns(block, 0, "champion"), self._shares)
        self._waiting = 0

    def take_label(self, joined: Joined) -> None:
        self.hand_over()
        self.collector.take_labels([joined])

    def flush(self) -> None:
        self.hand_over()
        self.collector.mirrored.expire()
        self.feed(self.collector.drain())
        self._check_split()

    def tick(self, now: float) -> list[rollout.Event]:
        self.flush()
        return super().tick(now)

    def dump_state(self) -> dict[str, Any]:
        self.flush()
        return super().dump_state()


def declared(**changes: Any) -> Declared:
    base = {"name": "x", "challengers": ["candidate"]}
    return Declared.model_validate({**base, **changes})


def live(redact: Any = dict, noise: bool = False, **changes: Any) -> Fed:
    arms = Arms("champion", "champion-again" if noise else "", {"candidate": 1.0}, b"salt")
    return Fed(declared(**changes), arms, redact)


def record(
    number: int,
    role: int = records.ROLE_PRIMARY,
    outcome: int = records.OK,
    assigned: int = 0,
    unit: bytes = b"",
    started: float = NOW + 10,
    seconds: float = 0.01,
) -> Record:
    one = Record()
    one.proxy_id = 0
    one.sampled = False
    one.span = one.events = b""
    one.request_id = b"r%d" % number
    one.role, one.outcome, one.assigned, one.unit = role, outcome, assigned, unit
    one.started, one.duration_ns = started, int(seconds * 1e9)
    one.model, one.status, one.trace_id, one.target = 0, 200, b"", b""
    one.first_byte_ns = one.queue_ns = one.request_size = one.response_size = 0
    one.request_headers = one.response_headers = b""
    one.request_body = one.response_body = None
    return one


def answer(value: object) -> Table:
    return Table(("p",), 1, [value])


def pair(one: Fed, number: int, first: object, second: object) -> None:
    inputs = Table(("age", "ssn"), 1, [number, "secret"])
    one.take(record(number), "champion", None, inputs, answer(first))
    copy = record(number, records.ROLE_MIRROR)
    one.take(copy, "candidate", None, None, answer(second))


def status(one: Fed, mode: str = "shadow") -> dict[str, Any]:
    one.flush()
    found = one.experiment.decide(mode, 1.0)["candidate"]
    return {item.name: item for item in found.evidence}


SPLIT = {"mode": "split", "weights": {"candidate": 0.4}}


def division(share: float = 0.4, since: float = NOW) -> SplitShares:
    return SplitShares(ARMS, (1.0 - share, share), since, since)


def assigned(number: int, arm: int, **changes: Any) -> tuple[Record, str]:
    return record(number, assigned=arm + 1, **changes), ARMS[arm]


def later(one: Fed) -> None:
    """A request that comes when all before it have been seen."""
    one.take(*assigned(999_999, 0, started=NOW + 60), division(), None, answer(1))


def served(one: Fed) -> list[int]:
    one.flush()
    return one.experiment.contests["candidate"].served


def joined(number: int, arm: str, p: float, label: object, share: float = 0.0) -> Joined:
    mirrored = arm != "champion" and not share
    return Joined(
        1, f"r{number}", arm, mirrored, "m", share, NOW, {"p": p}, 0, label, None, NOW + 5, 5.0
    )
