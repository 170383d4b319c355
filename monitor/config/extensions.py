"""Everything that can be added with one file: its name, what it accepts, and where its code is.

The configuration takes names, options and their descriptions from these tables, and imports none of
the code; who runs it calls :func:`implementation`. Order is the order in the documentation, and of
the wire formats the order of detection.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from understudy.common.extensions import WIRE_FORMATS, implementation

__all__ = ["CHANNELS", "CHANNEL_SETTINGS", "DETECTORS", "WIRE_FORMATS", "implementation"]


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


_RIVER = "monitor.detectors.river_detectors:of_one_series"
DETECTORS = {
    "shewhart": DetectorKind("monitor.detectors.charts:shewhart", ("limit", "rules"), points=True),
    "ewma": DetectorKind("monitor.detectors.charts:ewma", ("run_length", "weight"), points=True),
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
        "monitor.findings.channels.alertmanager:Alertmanager",
        "uses API v2",
        ("token_env", "resend", "labels"),
    ),
    "webhook": ChannelKind(
        "monitor.findings.channels.webhook:Webhook",
        "sends JSON",
        ("secret_env", "token_env", "repeat", "labels"),
    ),
    "slack": ChannelKind(
        "monitor.findings.channels.slack:Slack",
        "sends messages that Slack, Mattermost and Rocket.Chat accept",
        ("repeat",),
    ),
}
"""Alert channels by name."""
