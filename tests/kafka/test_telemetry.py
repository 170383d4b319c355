"""Evaluators send events by OTLP, and spans of requests whose answers differ, as a sidecar does."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.support.evaluation import SHADOW, SPLIT, config_of, items, published
from tests.support.kafka_cluster import Cluster
from tests.support.kafka_world import create, options, publish, with_kafka
from tests.support.otlp import Receiver
from tests.support.patience import eventually
from understudy.monitor.findings.finding import Signal
from understudy.monitor.kafka.evaluator import Evaluator
from understudy.monitor.kafka.partitions import HEALTH
from understudy.monitor.records.record import ROLE_MIRROR
from understudy.monitor.service.evaluator_events import attach_emitter


def test_an_evaluator_sends_what_it_finds(tmp_path: Path, kafka_cluster: Cluster) -> None:
    receiver = Receiver()
    telemetry = {
        "endpoint": receiver.url,
        "traces": {"interval": "50ms", "sampler": "always_off", "keep": ["disagreeing"]},
        "events": {"evaluations": ["comparisons"]},
    }
    config = with_kafka(
        config_of(tmp_path, telemetry=telemetry, experiments=[{**SHADOW, "compare": {}}, SPLIT]),
        kafka_cluster.bootstrap,
        kafka_cluster.prefix(),
        1,
    )
    create(config)
    found = items(5, 60)
    for number, item in enumerate(found):
        if item.record is not None:
            item.record.trace_id = b"%032x" % (number + 1)
            role = b"0" * 16 if item.record.role == ROLE_MIRROR else b"%016x" % (2 * number + 1)
            item.record.span = b"%b %b %016x 02 POST 1 0 " % (b"0" * 16, role, 2 * number + 2)
    publish(config, published(found, 1, 32))
    evaluator = Evaluator(config, options(config))
    emitter = attach_emitter(evaluator, config)
    thread = threading.Thread(target=evaluator.run)
    thread.start()
    try:

        def events(name: str) -> bool:
            return any(
                record.event_name == name
                for message in receiver.seen.logs
                for resource in message.resource_logs
                for scope in resource.scope_logs
                for record in scope.log_records
            )

        eventually(lambda: receiver.seen.spans, "spans of answers that differ", seconds=60)
        eventually(lambda: events("gen_ai.evaluation.result"))
        kept = {span.attributes["understudy.kept"] for span in receiver.seen.spans}
        assert kept == {"disagreeing"}
        arms = {span.attributes["understudy.arm"] for span in receiver.seen.spans}
        assert arms == {"champion", "candidate"}

        def reports() -> bool:
            member = evaluator.member
            if member is None or HEALTH not in member.consumers:
                return False
            ledger = member.consumers[HEALTH].findings_loop.service.ledger
            signal = Signal("drift:x", "drift", "delays", "1", "", "critical", "x drifts")
            member.commands.submit(lambda: ledger.report("test", [signal], 1.0)).result()
            return True

        eventually(reports)
        eventually(lambda: events("understudy.finding.opened"))
        names = {family.name for make in evaluator.families for family in make()}
        assert "understudy_otlp_offered" in names
    finally:
        evaluator.stop()
        thread.join()
        emitter.close()
        receiver.stop()
