"""Who of the group gets which partitions: those of one number together, and the judges apart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kafka.coordinator.assignors.abstract import (
    AbstractPartitionAssignor,
    ConsumerProtocolAssignment,
    ConsumerProtocolSubscription,
)


class CoPartitionAssignor(AbstractPartitionAssignor):  # type: ignore[misc]  # kafka-python has no types
    """``meeting`` are topics whose partitions of one number go to one member: what has the same
    request id meets there. ``judged`` is the topic of the evidence, ``costs`` what judging costs
    by its partition, against all of the input. ``url`` is where this member can be asked; every
    member gets to know of those that judge, in :attr:`owners`."""

    name = "understudy"
    version = 0

    def __init__(
        self, meeting: tuple[str, ...], judged: str, costs: Mapping[int, float], url: str
    ) -> None:
        self.meeting = meeting
        self.judged = judged
        self.costs = costs
        self.url = url
        self.owners: dict[int, str] = {}
        """URLs of those that judge, by partition of the evidence."""

    def assign(self, cluster: Any, members: Any) -> dict[str, Any]:
        """By the number of members and partitions alone, so that every leader finds the same."""
        names = sorted(member.member_id for member in members)
        topics = {topic for member in members for topic in member.metadata.topics}
        counts = {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in topics}
        shares = shared(names, counts, self.meeting, self.judged, self.costs)
        urls = {member.member_id: bytes(member.metadata.user_data or b"") for member in members}
        owners = {
            str(place): urls[name].decode(errors="replace")
            for name in names
            for place in shares[name].get(self.judged, ())
        }
        told = json.dumps(owners).encode()
        return {
            name: ConsumerProtocolAssignment(self.version, sorted(shares[name].items()), told)
            for name in names
        }

    def metadata(self, topics: Any) -> Any:
        """What a member says of itself."""
        return ConsumerProtocolSubscription(self.version, list(topics), self.url.encode())

    def on_assignment(self, assignment: Any, generation: Any) -> None:
        """Remember who judges."""
        try:
            told = json.loads(bytes(assignment.user_data or b"") or b"{}")
            self.owners = {int(place): str(url) for place, url in told.items() if url}
        except (ValueError, AttributeError):
            self.owners = {}


def shared(
    members: list[str],
    counts: Mapping[str, int],
    meeting: tuple[str, ...],
    judged: str,
    costs: Mapping[int, float],
) -> dict[str, dict[str, list[int]]]:
    """Partitions by topic for each member: always to who has least to do so far."""
    found: dict[str, dict[str, list[int]]] = {name: {} for name in members}
    load = dict.fromkeys(members, 0.0)
    inputs = max((counts.get(topic, 0) for topic in meeting), default=0)
    others = [t for t in sorted(counts) if t not in meeting and t != judged]
    every = inputs + sum(counts[topic] for topic in others)

    def give(topics: list[str], number: int, cost: float) -> None:
        name = min(members, key=lambda m: (load[m], m))
        load[name] += cost
        for topic in topics:
            if number < counts.get(topic, 0):
                found[name].setdefault(topic, []).append(number)

    for number in range(counts.get(judged, 0)):
        give([judged], number, every * costs.get(number, 0.0))
    for number in range(inputs):
        give(list(meeting), number, 1.0)
    for topic in others:
        for number in range(counts[topic]):
            give([topic], number, 1.0)
    return found
