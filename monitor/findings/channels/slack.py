"""Messages for incoming webhooks of Slack, Mattermost and Rocket.Chat."""

from __future__ import annotations

from typing import Any

import orjson

from understudy.monitor.findings import words
from understudy.monitor.findings.channels.messages import Message, MessageChannel

_MAX_HEADER = 150
_MAX_SECTION = 2900
_MARKS = {"info": "ℹ️", "warning": "⚠️", "critical": "🔴"}


class Slack(MessageChannel):
    """Sends ``text`` for notifications and clients without blocks, and ``blocks``.

    Slack accepts one message per second.
    """

    spacing_seconds = 1.0

    def render(self, message: Message, now: float) -> tuple[bytes, dict[str, str]]:
        """Body and headers."""
        finding = message.finding
        signal = finding.signal
        line = words.headline(message.event, finding)
        mark = "✅" if message.event == "closed" else _MARKS[signal.severity]
        blocks: list[dict[str, Any]] = [_header(f"{mark} {line}")]
        facts = [("What", words.subject(signal)), ("Kind", signal.kind)]
        if signal.since is not None:
            facts.append(("Since about", words.moment(signal.since)))
        facts.append(("Opened", words.moment(finding.opened)))
        if finding.closed is not None:
            facts.append(("Open for", words.span(finding.closed - finding.opened)))
        blocks.append(_fields([(name, value) for name, value in facts if value]))
        changed = message.event not in ("opened", "reminder") and finding.change
        if changed:
            blocks.append(_section(f"*Change*\n{_escape(finding.change)}"))
        if message.event != "closed":
            blocks += self._details(message)
        blocks.append(_context(self._foot(message)))
        # One line, readable on a lock screen.
        document = {"text": _escape(f"{line} ({words.subject(signal)})"), "blocks": blocks}
        return orjson.dumps(document), {}

    def _details(self, message: Message) -> list[dict[str, Any]]:
        signal = message.finding.signal
        blocks = []
        listed = words.features(signal)
        if listed:
            blocks.append(_section("\n".join(f"• {_escape(line)}" for line in listed)))
        if signal.size is not None:
            blocks.append(_section(f"*Size*\n{_escape(words.size(signal.size))}"))
        if signal.advice:
            blocks.append(_section(f"*What to check next*\n{_escape(signal.advice)}"))
        return blocks

    def _foot(self, message: Message) -> str:
        signal = message.finding.signal
        parts = [_escape(part) for part in (signal.rule, signal.guarantee) if part]
        link = self.config.link
        id_ = message.finding.id
        # The URL comes from the configuration and holds none of Slack's control characters.
        parts.append(f"<{link.rstrip('/')}/v1/findings/{id_}|{id_}>" if link else id_)
        return " · ".join(parts)


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _cut(text: str, most: int) -> str:
    """Cut to the limit, but not within an escaped character."""
    if len(text) <= most:
        return text
    text = text[: most - 1]
    start = text.rfind("&", len(text) - 5)
    if start >= 0 and ";" not in text[start:]:
        text = text[:start]
    return text + "…"


def _header(text: str) -> dict[str, Any]:
    plain = {"type": "plain_text", "text": text[:_MAX_HEADER], "emoji": True}
    return {"type": "header", "text": plain}


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": _cut(text, _MAX_SECTION)}}


def _fields(facts: list[tuple[str, str]]) -> dict[str, Any]:
    fields = [
        {"type": "mrkdwn", "text": _cut(f"*{name}*\n{_escape(value)}", 1900)}
        for name, value in facts
    ]
    return {"type": "section", "fields": fields}


def _context(text: str) -> dict[str, Any]:
    elements = [{"type": "mrkdwn", "text": _cut(text, _MAX_SECTION)}]
    return {"type": "context", "elements": elements}
