"""Who of the group gets which partitions: those of one number together, and the judges apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kafka.coordinator.assignors.abstract import (
    AbstractPartitionAssignor,
    ConsumerProtocolAssignment,
    ConsumerProtocolSubscription,
)

JUDGE_SHARE = 0.5
"""What judging all costs, against preparing all: a judge gets fewer partitions of the input."""


class Together(AbstractPartitionAssignor):  # type: ignore[misc]  # kafka-python has no types
    """``meeting`` are topics whose partitions of one number go to one member: what has the same
    request id meets there. ``judged`` is the topic of the evidence, of which only the partitions
    ``busy`` have models."""

    name = "understudy"
    version = 0

    def __init__(self, meeting: tuple[str, ...], judged: str, busy: frozenset[int]) -> None:
        self.meeting = meeting
        self.judged = judged
        self.busy = busy

    def assign(self, cluster: Any, members: Any) -> dict[str, Any]:
        """By the number of members and partitions alone, so that every leader finds the same."""
        names = sorted(member.member_id for member in members)
        topics = {topic for member in members for topic in member.metadata.topics}
        counts = {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in topics}
        shares = shared(names, counts, self.meeting, self.judged, self.busy)
        return {
            name: ConsumerProtocolAssignment(self.version, sorted(shares[name].items()), b"")
            for name in names
        }

    def metadata(self, topics: Any) -> Any:
        """What a member says of itself."""
        return ConsumerProtocolSubscription(self.version, list(topics), b"")

    def on_assignment(self, assignment: Any, generation: Any) -> None:
        """Nothing is kept."""


def shared(
    members: list[str],
    counts: Mapping[str, int],
    meeting: tuple[str, ...],
    judged: str,
    busy: frozenset[int],
) -> dict[str, dict[str, list[int]]]:
    """Partitions by topic for each member: always to who has least to do so far."""
    found: dict[str, dict[str, list[int]]] = {name: {} for name in members}
    load = dict.fromkeys(members, 0.0)
    inputs = max((counts.get(topic, 0) for topic in meeting), default=0)
    others = [t for t in sorted(counts) if t not in meeting and t != judged]
    every = inputs + sum(counts[topic] for topic in others)
    weight = every * JUDGE_SHARE / max(1, len(busy))

    def give(topics: list[str], number: int, cost: float) -> None:
        name = min(members, key=lambda m: (load[m], m))
        load[name] += cost
        for topic in topics:
            if number < counts.get(topic, 0):
                found[name].setdefault(topic, []).append(number)

    for number in range(counts.get(judged, 0)):
        give([judged], number, weight if number in busy else 0.0)
    for number in range(inputs):
        give(list(meeting), number, 1.0)
    for topic in others:
        for number in range(counts[topic]):
            give([topic], number, 1.0)
    return found
