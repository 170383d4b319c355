"""Both stages in one process, without a broker: for files, and as the reference in tests.

The same blocks give the same decisions and states as over Kafka, for any number of partitions and
evaluators.
"""

from __future__ import annotations

from collections.abc import Iterable

from understudy.monitor.config.model import Config
from understudy.monitor.evidence.blocks import Block
from understudy.monitor.evidence.partition import Partition
from understudy.monitor.kafka.consumer import EvidenceConsumer
from understudy.monitor.kafka.messages import messages_of
from understudy.monitor.kafka.partitions import evidence_partition, partition_config


class Offline:
    """Evaluates ``inputs`` partitions of records over ``outputs`` partitions of evidence."""

    def __init__(self, config: Config, inputs: int = 1, outputs: int = 1) -> None:
        self.partitions = [Partition(config, f"records/{n}") for n in range(inputs)]
        names = [one.name for one in self.partitions]
        self.consumers = [
            EvidenceConsumer(partition_config(config, n, outputs), names) for n in range(outputs)
        ]
        self._offsets = [0] * inputs
        self._read = [0] * outputs

    def close(self) -> None:
        """Delete temporary files."""
        for partition in self.partitions:
            partition.close()
        for consumer in self.consumers:
            consumer.close()

    def take(self, input_: int, blocks: Iterable[Block], of_labels: bool = False) -> None:
        """Take blocks of partition ``input_``, in order; ``of_labels`` if they hold labels."""
        for block in blocks:
            self.partitions[input_].take(block, self._offsets[input_], of_labels)
            self._offsets[input_] += 1

    def send_evidence(self, input_: int) -> None:
        """Send the evidence of one input partition to stage two."""
        partition = self.partitions[input_]
        batches = partition.drain()
        for number, consumer in enumerate(self.consumers):
            routed = [
                batch
                for batch in batches
                if evidence_partition(partition.is_for_experiment(batch), len(self.consumers))
                == number
            ]
            for message in messages_of(partition.name, partition.complete, routed):
                consumer.take(message, self._read[number])
                self._read[number] += 1

    def advance(self) -> None:
        """Evaluate all complete slots."""
        for consumer in self.consumers:
            consumer.advance()

    def finish(self) -> None:
        """Send and evaluate everything that is left."""
        for number in range(len(self.partitions)):
            self.send_evidence(number)
        self.advance()
        for consumer in self.consumers:
            consumer.finish()
