"""An evaluation over partitions, without brokers."""

from __future__ import annotations

import random
from typing import Any

from tests.support.evaluation import items, published, state_of
from understudy.monitor.config.model import Config
from understudy.monitor.kafka.offline import Offline

REQUESTS = 400


def evaluated(
    config: Config,
    partitions: int,
    most: int,
    turns: int | None,
    of: int = 3,
    requests: int = REQUESTS,
    outputs: int = 1,
) -> Any:
    """The state after everything; with ``turns`` partitions are read in turns of any length."""
    offline = Offline(config, partitions, outputs)
    try:
        queues: list[list[tuple[bool, Any]]] = [[] for _ in range(partitions)]
        for _, partition, of_labels, block in published(items(of, requests), partitions, most):
            queues[partition].append((of_labels, block))
        chance = random.Random(turns)
        while any(queues):
            number = chance.choice([n for n, queue in enumerate(queues) if queue])
            count = chance.randint(1, 60) if turns is not None else len(queues[number])
            batch, queues[number] = queues[number][:count], queues[number][count:]
            for of_labels, block in batch:
                offline.take(number, [block], of_labels)
            offline.send_evidence(number)
            offline.advance()
        offline.finish()
        assert not any(consumer.late for consumer in offline.consumers)
        return state_of(offline.consumers)
    finally:
        offline.close()
