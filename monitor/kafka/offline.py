"""Both stages in one process and without a broker between them: for files, and to check the rest.

The same blocks give the same decisions and the same states here as over Kafka, however many
partitions and evaluators there are.
"""

from __future__ import annotations

from collections.abc import Iterable

from understudy.monitor.config.model import Config
from understudy.monitor.evidence.blocks import Block
from understudy.monitor.evidence.partition import Partition
from understudy.monitor.kafka.consumer import EvidenceConsumer
from understudy.monitor.kafka.messages import messages_of
from understudy.monitor.kafka.partitions import owned, place_of


class Offline:
    """``inputs`` partitions of records are evaluated, and ``judges`` partitions of evidence."""

    def __init__(self, config: Config, inputs: int = 1, judges: int = 1) -> None:
        self.partitions = [Partition(config, f"records/{n}") for n in range(inputs)]
        names = [one.name for one in self.partitions]
        self.judges = [EvidenceConsumer(owned(config, n, judges), names) for n in range(judges)]
        self._offsets = [0] * inputs
        self._read = [0] * judges

    def close(self) -> None:
        """Throw away what lies on disk."""
        for partition in self.partitions:
            partition.close()
        for judge in self.judges:
            judge.close()

    def take(self, input_: int, blocks: Iterable[Block], of_labels: bool = False) -> None:
        """Blocks of one partition, in their order."""
        for block in blocks:
            self.partitions[input_].take(block, self._offsets[input_], of_labels)
            self._offsets[input_] += 1

    def pass_on(self, input_: int) -> None:
        """Hand the evidence of one partition over."""
        partition = self.partitions[input_]
        batches = partition.drain()
        for number, judge in enumerate(self.judges):
            mine = [
                batch
                for batch in batches
                if place_of(partition.is_for_experiment(batch), len(self.judges)) == number
            ]
            for message in messages_of(partition.name, partition.complete, mine):
                judge.take(message, self._read[number])
                self._read[number] += 1

    def advance(self) -> None:
        """Judge what is complete."""
        for judge in self.judges:
            judge.advance()

    def finish(self) -> None:
        """Hand over and judge everything."""
        for number in range(len(self.partitions)):
            self.pass_on(number)
        self.advance()
        for judge in self.judges:
            judge.finish()
