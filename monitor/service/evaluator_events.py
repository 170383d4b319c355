"""What evaluators send by OTLP: events, and spans that are kept since answers differ.

Spans of requests and metrics are the sidecars'.
"""

from __future__ import annotations

from understudy.monitor.config.model import Config
from understudy.monitor.config.otel import Signal
from understudy.monitor.evidence.partition import Partition
from understudy.monitor.kafka.consumer import EvidenceConsumer
from understudy.monitor.kafka.evaluator import Evaluator
from understudy.monitor.telemetry.otlp.emitter import Emitter


def attach_emitter(evaluator: Evaluator, config: Config) -> Emitter:
    """Have an evaluator send what OpenTelemetry is to get of it; close the result at the end.

    After a takeover, what was not committed is evaluated and sent again."""
    signals: list[Signal] = ["logs"]
    if "disagreeing" in config.telemetry.traces.keep:
        signals.append("traces")
    emitter = Emitter(config, signals=signals)

    def attach(part: Partition | EvidenceConsumer) -> None:
        if isinstance(part, Partition):
            emitter.listen(part.stage_one)
        else:
            part.findings_loop.service.listeners.append(emitter.findings)
            part.experiments.listeners.append(emitter.experiments)

    evaluator.attach = attach
    evaluator.families.append(emitter.families)
    return emitter
