"""What evaluators have found, beside an offline replay of what the sidecars took in."""

from __future__ import annotations

from collections import Counter
from typing import Any

from benchmarks.kafka import traffic
from tests.support.evaluation import differences
from tests.support.kafka_world import committed_state
from understudy.monitor.config.model import Config
from understudy.monitor.evidence.blocks import Builder
from understudy.monitor.kafka.messages import decode_message
from understudy.monitor.kafka.offline import Offline
from understudy.monitor.kafka.options import Options
from understudy.monitor.kafka.partitions import EVIDENCE_PARTITIONS
from understudy.shadow.sequential.histogram import TwoHistograms

_ORDERED = frozenset(("notes",))
"""Sorts of rows that an order of their own has to hold, not their number."""


def compare(config: Config, order: dict[str, Any]) -> dict[str, Any]:
    """Records that were taken in, rows of evidence, and everything in which the two differ."""
    state = committed_state(config)
    rows, unread = evidence_rows(config, state["read"] if state else [0] * EVIDENCE_PARTITIONS)
    wanted, wanted_rows, records = expected(config, order)
    result, moved = ["no state"], 0
    if state:
        two = counted(wanted), counted(state["pipeline"])
        moved = _align(*two) if state["late"] else 0
        result = differences(*two, 1e-6)
    twice = [row for row, count in (rows - wanted_rows).items() if count]
    lost = [row for row, count in (wanted_rows - rows).items() if count]
    return {
        "records": records,
        "rows": sum(wanted_rows.values()),
        "rows_twice_or_strange": len(twice),
        "rows_lost": len(lost),
        "rows_not_judged_yet": unread,
        "differences": result[:20],
        "late_rows": state["late"] if state else None,
        "other_edges": moved,
        "examples": [repr(row) for row in (*twice[:5], *lost[:5])],
    }


def equal(run: dict[str, Any]) -> bool:
    """Whether there is no difference."""
    return not (run["differences"] or run["rows_lost"] or run["rows_twice_or_strange"])


def expected(config: Config, order: dict[str, Any]) -> tuple[dict[str, Any], Counter[Any], int]:
    """The state, the rows of evidence and the number of records of an offline replay."""
    offline = Offline(config)
    rows: Counter[Any] = Counter()
    records = 0
    partition = offline.partitions[0]
    drained = partition.drain

    def noted() -> Any:
        batches = drained()
        for batch in batches:
            rows.update(_rows(batch))
        return batches

    partition.drain = noted  # type: ignore[method-assign]
    began, ticks = order["began"], order["ticks"]
    sidecars, requests, seed = order["sidecars"], order["requests"], order["seed"]
    builders = [Builder(f"pod-{n}", "replay", 1) for n in range(sidecars)]
    labels = [Builder(f"pod-{n}", "replay-labels", 1) for n in range(sidecars)]
    try:
        for number in range(ticks):
            now = began + (number + 1) * traffic.TICK_SECONDS
            for sidecar, builder in enumerate(builders):
                made = traffic.batch(seed, sidecar, number, began, requests)
                records += len(made.exchanges)
                blocks: list[Any] = []
                for record, of_request, of_response in made.exchanges:
                    blocks += builder.add(traffic.NAMES, record, of_request, of_response, now)
                blocks += builder.flush(now, everything=True)
                offline.take(0, blocks)
                if made.labels:
                    pairs = [(now, label) for label in made.labels]
                    offline.take(0, labels[sidecar].labels(pairs, now), of_labels=True)
                offline.take(0, builder.heartbeats(now, now - 2.0))
            if number % 10 == 9:
                offline.send_evidence(0)
                offline.advance()
        offline.finish()
        state = offline.consumers[0].dump_state()["pipeline"]
        return state, rows, records
    finally:
        offline.close()


def _rows(batch: Any) -> list[Any]:
    if batch.kind[0] in _ORDERED:
        return []
    sides = batch.side.tolist()
    return [(batch.kind, one, side) for one, side in zip(batch.ids, sides, strict=True)]


def evidence_rows(config: Config, read: list[int]) -> tuple[Counter[Any], int]:
    """Every row of evidence that is committed, and how many are beyond what consumers have read."""
    from kafka import KafkaConsumer, TopicPartition

    options = Options(config.kafka, "reader")  # type: ignore[arg-type]
    consumer = KafkaConsumer(
        **options.client(), isolation_level="read_committed", enable_auto_commit=False
    )
    tps = [TopicPartition(options.topics.evidence, n) for n in range(EVIDENCE_PARTITIONS)]
    consumer.assign(tps)
    consumer.seek_to_beginning(*tps)
    ends = consumer.end_offsets(tps)
    rows: Counter[Any] = Counter()
    unread = 0
    while any(consumer.position(tp) < ends[tp] for tp in tps):
        for messages in consumer.poll(timeout_ms=500).values():
            for message in messages:
                for _, batch in decode_message(message.value).batches:
                    result = _rows(batch)
                    rows.update(result)
                    unread += len(result) if message.offset >= read[message.partition] else 0
    consumer.close()
    return rows, unread


def counted(state: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on the order of rows."""
    experiments = {}
    for name, saved in state["experiments"].items():
        one = saved["live"]
        experiments[name] = {
            "assigned": _assigned(one),
            "carried_over": one["carried_over"],
            "contests": {
                challenger: {
                    "pairs": contest["pairs"],
                    "left_out": contest["left_out"],
                    "served": contest["served"],
                    "measures": {
                        mode: {
                            metric: _values(measure["state"])
                            for metric, measure in measures.items()
                        }
                        for mode, measures in contest["measures"].items()
                    },
                }
                for challenger, contest in one["evidence"]["contests"].items()
            },
        }
    watches = state["judge"]["watches"]
    (watch,) = watches["watches"]
    (performance,) = [one["state"] for one in watches["performance"]] or [{}]
    return {
        "records": state["records"],
        "features": state["features"],
        "predictions": state["predictions"],
        "undecodable": sorted(state["undecodable"]),
        "experiments": experiments,
        "watched": watch["state"]["rows"],
        "labels": performance.get("labels"),
        "predicted": performance.get("predictions"),
        "tally": performance.get("whole"),
    }


def _assigned(experiment: dict[str, Any]) -> list[int]:
    """Requests of a split by arm, those whose assignment is not settled yet included."""
    split = experiment["evidence"]["split"]
    counts = [of_arms for _, of_arms in (split or {}).get("epochs", ())]
    counts += [of_arms for _, of_arms in experiment["assigned"]["slots"]]
    return [sum(of_arm) for of_arm in zip(*counts, strict=True)]


def _values(measure: dict[str, Any]) -> dict[str, Any]:
    """Numbers of values of one metric, and the sums of its tests."""
    observed = measure["observed"]
    return {
        "unknown": measure["unknown"],
        "tests": [_sums(test) for test in observed.get("tests", ())],
        **{
            key: value
            for key, value in observed.items()
            if key in ("n", "outside", "carried", "histograms")
        },
    }


def _align(wanted: Any, found: Any) -> int:
    """The first hundred pairs choose the edges of a histogram, and if some of these came late they
    are others: then only how many values there are can be compared. How often that was so."""
    if not isinstance(wanted, dict) or not isinstance(found, dict):
        return 0
    moved = 0
    for key in wanted.keys() & found.keys():
        a, b = wanted[key], found[key]
        if key == "histograms" and a and b and a["edges"] != b["edges"]:
            wanted[key], found[key] = (list(TwoHistograms.from_state(x).totals) for x in (a, b))
            moved += 1
        else:
            moved += _align(a, b)
    return moved


def _sums(test: dict[str, Any]) -> dict[str, Any]:
    kept = ("kind", "counts", "records", "successes", "moments")
    return {key: test[key] for key in kept if key in test}
