"""A sidecar's publisher under made-up traffic, to be killed: python -m benchmarks.kafka.sidecar.

Batches are counted as taken in exactly when the spool holds them; after a ``kill -9`` it goes on
with the first one that it does not.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from pathlib import Path

from benchmarks.kafka.traffic import NAMES, TICK_SECONDS, batch
from understudy.monitor.config.load import load
from understudy.monitor.kafka.publisher import Publisher

AGAIN = 30
"""Ticks whose labels are sent again after a restart; those that are known already are ignored."""


async def main(path: Path, order: dict[str, float]) -> None:
    config = load(path)
    assert config.kafka is not None
    seed, sidecar, requests = (int(order[name]) for name in ("seed", "sidecar", "requests"))
    began, ticks = order["began"], int(order["ticks"])
    kafka = config.kafka.model_copy(update={"source": f"pod-{sidecar}"})
    publisher = Publisher(kafka, Path(config.state_dir) / f"sidecar-{sidecar}", "run-1")
    publisher.start()
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    slot = publisher.slots.of("run-1", 0)
    first = publisher.committed.get(("run-1", 0), 0)
    if first:
        labels = [
            label
            for n in range(max(0, first - AGAIN), first)
            for label in batch(seed, sidecar, n, began, requests).labels
        ]
        if labels:
            await publisher.add_labels(labels)
    number = first
    flushed = time.monotonic()
    while not over.is_set():
        now = time.time()
        while number < ticks and began + (number + 1) * TICK_SECONDS <= now:
            made = batch(seed, sidecar, number, began, requests)
            publisher.extend(NAMES, made.exchanges, now)
            number += 1
            slot.last_seq = number
            slot.received += len(made.exchanges)
            if made.labels:
                await publisher.add_labels(made.labels)
        if time.monotonic() - flushed >= 0.3:
            await publisher.flush()
            flushed = time.monotonic()
        await asyncio.sleep(0.05)
    await publisher.stop(30.0)
    print(json.dumps({"ticks": number, **publisher.summary()}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), json.loads(sys.argv[2])))
