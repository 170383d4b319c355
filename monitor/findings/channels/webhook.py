"""JSON to any URL, signed when a key is configured.

The signature is HMAC-SHA256 over ``<timestamp>.<body>``, where the timestamp is that of the
header beside it: a receiver that rejects old timestamps is safe from replayed messages.
"""

from __future__ import annotations

import hmac
from hashlib import sha256

import orjson

from understudy.monitor.findings.channels.messages import Message, MessageChannel
from understudy.monitor.findings.words import headline, moment

SIGNATURE = "X-Understudy-Signature"
TIMESTAMP = "X-Understudy-Timestamp"
DELIVERY = "X-Understudy-Delivery"
EVENT = "X-Understudy-Event"


def signature(key: bytes, timestamp: str, body: bytes) -> str:
    """``sha256=`` and the hexadecimal digest."""
    return "sha256=" + hmac.new(key, timestamp.encode() + b"." + body, sha256).hexdigest()


class Webhook(MessageChannel):
    """Sends the incident with its findings, and what changed."""

    def render(self, message: Message, now: float) -> tuple[bytes, dict[str, str]]:
        """Body and headers. Raises DeliveryError when the key is not in the environment: a
        message is never sent unsigned."""
        finding = message.finding
        document = {
            "version": 1,
            "event": message.event,
            "delivery": message.delivery,
            "time": moment(now),
            "text": headline(message.event, message.incident),
            "change": message.change,
            "labels": dict(self.config.labels),
            "link": self.page(finding),
            "runbook": self.runbook(finding),
            "incident": message.incident.to_dict(),
            "finding": finding.to_dict(),
            "findings": [one.to_dict() for one in message.incident.findings],
        }
        body = orjson.dumps(document)
        stamp = str(int(now))
        headers = {EVENT: message.event, DELIVERY: message.delivery, TIMESTAMP: stamp}
        if self.config.secret_env:
            key = self.variable(self.config.secret_env).encode()
            headers[SIGNATURE] = signature(key, stamp, body)
        return body, headers
