"""Everything that can be added with one file: its name, what it accepts, and where its code is.

The configuration takes names, options and their descriptions from these tables, and imports none of
the code; who runs it calls :func:`implementation`. Order is the order in the documentation, and of
the wire formats the order of detection.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

WIRE_FORMATS = {
    "mlflow": "codecs.mlflow:FORMAT",
    "open-inference-v2": "codecs.open_inference:FORMAT",
    "kserve-v1": "codecs.kserve_v1:FORMAT",
    "json": "codecs.pointer:FORMAT",
}
"""Wire formats by name: a :class:`understudy.monitor.codecs.spec.WireFormat` each."""


@dataclass(frozen=True, slots=True)
class DetectorKind:
    """``code`` makes a detector of one series: ``make(kind, options, baseline_points)``.

    ``options`` are the names of its options; None: any, which the code checks. ``points``: it takes
    means of fifty rows, not rows. ``errors_only``: it takes 0 and 1, as for wrong predictions.
    """

    code: str
    options: Collection[str] | None = None
    points: bool = False
    errors_only: bool = False


_RIVER = "detectors.river_detectors:of_one_series"
DETECTORS = {
    "shewhart": DetectorKind("detectors.charts:shewhart", ("limit", "rules"), points=True),
    "ewma": DetectorKind("detectors.charts:ewma", ("run_length", "weight"), points=True),
    "adwin": DetectorKind(_RIVER),
    "kswin": DetectorKind(_RIVER),
    "page_hinkley": DetectorKind(_RIVER),
    "ddm": DetectorKind(_RIVER, errors_only=True),
    "eddm": DetectorKind(_RIVER, errors_only=True),
    "hddm_a": DetectorKind(_RIVER, errors_only=True),
    "hddm_w": DetectorKind(_RIVER, errors_only=True),
}
"""Additional detectors by name."""


@dataclass(frozen=True, slots=True)
class ChannelKind:
    """``code`` is a :class:`understudy.monitor.findings.channels.base.Channel`.

    ``text`` completes the sentence "<name> …". ``settings`` are the keys that it accepts of those
    that not all kinds accept (:data:`CHANNEL_SETTINGS`).
    """

    code: str
    text: str
    settings: Collection[str] = ()


CHANNEL_SETTINGS = ("secret_env", "token_env", "repeat", "resend", "labels")
"""Keys of a channel that only some kinds accept."""
CHANNELS = {
    "alertmanager": ChannelKind(
        "findings.channels.alertmanager:Alertmanager",
        "uses API v2",
        ("token_env", "resend", "labels"),
    ),
    "webhook": ChannelKind(
        "findings.channels.webhook:Webhook",
        "sends JSON",
        ("secret_env", "token_env", "repeat", "labels"),
    ),
    "slack": ChannelKind(
        "findings.channels.slack:Slack",
        "sends messages that Slack, Mattermost and Rocket.Chat accept",
        ("repeat",),
    ),
}
"""Alert channels by name."""


def implementation(code: str) -> Any:
    """What ``code`` names, as ``package.module:attribute`` below ``understudy.monitor``."""
    module, _, attribute = code.partition(":")
    return getattr(importlib.import_module(f"understudy.monitor.{module}"), attribute)
