"""Assigns partitions to group members: co-partitioned topics together, evidence spread by cost."""

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
    """Assignor of kafka-python's consumer.

    ``co_partitioned`` are topics whose partitions of one number go to one member, so that all
    messages with the same request id meet there. ``evidence`` is the evidence topic, ``costs`` the
    cost of evaluating each of its partitions, relative to stage one of all input. ``url`` is the
    address of this member's control API; every member learns the owners of the evidence, in
    :attr:`owners`."""

    name = "understudy"
    version = 0

    def __init__(
        self, co_partitioned: tuple[str, ...], evidence: str, costs: Mapping[int, float], url: str
    ) -> None:
        self.co_partitioned = co_partitioned
        self.evidence = evidence
        self.costs = costs
        self.url = url
        self.owners: dict[int, str] = {}
        """URL of each owner, by partition of the evidence."""

    def assign(self, cluster: Any, members: Any) -> dict[str, Any]:
        """Depends only on members and partition counts, so every leader computes the same."""
        names = sorted(member.member_id for member in members)
        topics = {topic for member in members for topic in member.metadata.topics}
        counts = {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in topics}
        shares = assign_partitions(names, counts, self.co_partitioned, self.evidence, self.costs)
        urls = {member.member_id: bytes(member.metadata.user_data or b"") for member in members}
        owners = {
            str(number): urls[name].decode(errors="replace")
            for name in names
            for number in shares[name].get(self.evidence, ())
        }
        user_data = json.dumps(owners).encode()
        return {
            name: ConsumerProtocolAssignment(self.version, sorted(shares[name].items()), user_data)
            for name in names
        }

    def metadata(self, topics: Any) -> Any:
        """Metadata that this member sends when it joins."""
        return ConsumerProtocolSubscription(self.version, list(topics), self.url.encode())

    def on_assignment(self, assignment: Any, generation: Any) -> None:
        """Store the owners of the evidence."""
        try:
            user_data = json.loads(bytes(assignment.user_data or b"") or b"{}")
            self.owners = {int(number): str(url) for number, url in user_data.items() if url}
        except (ValueError, AttributeError):
            self.owners = {}


def assign_partitions(
    members: list[str],
    counts: Mapping[str, int],
    co_partitioned: tuple[str, ...],
    evidence: str,
    costs: Mapping[int, float],
) -> dict[str, dict[str, list[int]]]:
    """Partitions by topic for each member; each goes to the member with the least load so far."""
    result: dict[str, dict[str, list[int]]] = {name: {} for name in members}
    load = dict.fromkeys(members, 0.0)
    inputs = max((counts.get(topic, 0) for topic in co_partitioned), default=0)
    others = [t for t in sorted(counts) if t not in co_partitioned and t != evidence]
    total = inputs + sum(counts[topic] for topic in others)

    def assign(topics: list[str], number: int, cost: float) -> None:
        name = min(members, key=lambda m: (load[m], m))
        load[name] += cost
        for topic in topics:
            if number < counts.get(topic, 0):
                result[name].setdefault(topic, []).append(number)

    for number in range(counts.get(evidence, 0)):
        assign([evidence], number, total * costs.get(number, 0.0))
    for number in range(inputs):
        assign(list(co_partitioned), number, 1.0)
    for topic in others:
        for number in range(counts[topic]):
            assign([topic], number, 1.0)
    return result
