"""Messages for incoming webhooks of Slack, Mattermost and Rocket.Chat."""

from __future__ import annotations

from typing import Any

import orjson

from understudy.common.text import visible
from understudy.monitor.findings import words
from understudy.monitor.findings.channels.base import Probe
from understudy.monitor.findings.channels.messages import Message, MessageChannel
from understudy.monitor.findings.finding import SEVERITIES
from understudy.monitor.findings.post import Reply

_MAX_HEADER = 150
_MAX_SECTION = 2900
_MOST = 8
_MARKS = {"info": "ℹ️", "warning": "⚠️", "critical": "🔴"}


def _without_text(reply: Reply) -> bool:
    """Whether a receiver rejects a message only since it is empty: not for its address, which some
    reject with the same status."""
    text = reply.text.lower()
    return reply.status == 400 and any(word in text for word in ("text", "payload", "body"))


class Slack(MessageChannel):
    """Sends ``text`` for notifications and clients without blocks, and ``blocks``.

    Slack accepts one message per second.
    """

    spacing_seconds = 1.0
    probe = Probe("POST", body=b"{}", accepts=_without_text)

    def render(self, message: Message, now: float) -> tuple[bytes, dict[str, str]]:
        """Body and headers. Texts of findings are plain: none of their characters is a sign of
        Slack's or Mattermost's."""
        incident = message.incident
        signal = message.finding.signal
        line = words.headline(message.event, incident)
        mark = "✅" if message.event == "closed" else _MARKS[SEVERITIES[incident.severity]]
        blocks: list[dict[str, Any]] = [_header(f"{mark} {line}")]
        facts = [("What", words.subject(signal)), ("Kind", signal.kind)]
        if incident.since is not None:
            facts.append(("Since about", words.moment(incident.since)))
        facts.append(("Opened", words.moment(incident.opened)))
        if incident.closed is not None:
            facts.append(("Open for", words.span(incident.closed - incident.opened)))
        blocks.append(_fields([(name, value) for name, value in facts if value]))
        if message.event not in ("opened", "reminder") and message.change:
            blocks.append(_section("Change", message.change))
        if message.event != "closed":
            blocks += self._details(message)
        blocks.append(_context(self._foot(message)))
        # One line, readable on a lock screen.
        text = _escape(visible(f"{line} ({words.subject(signal)})"))
        return orjson.dumps({"text": text, "mrkdwn": False, "blocks": blocks}), {}

    def _details(self, message: Message) -> list[dict[str, Any]]:
        signal = message.finding.signal
        findings = message.incident.open_findings
        blocks = []
        if len(findings) > 1:
            shown = [f"• {one.signal.severity}: {one.signal.title}" for one in findings[:_MOST]]
            if len(findings) > _MOST:
                shown.append(f"and {len(findings) - _MOST} more")
            blocks.append(_section(f"{len(findings)} findings", "\n".join(shown)))
        else:
            listed = words.features(signal)
            if listed:
                blocks.append(_section("Features", "\n".join(f"• {line}" for line in listed)))
        if signal.size is not None:
            blocks.append(_section("Size", words.size(signal.size)))
        if signal.advice:
            blocks.append(_section("What to check next", signal.advice))
        return blocks

    def _foot(self, message: Message) -> str:
        signal = message.finding.signal
        parts = [_escape(visible(part)) for part in (signal.rule, signal.guarantee) if part]
        page = self.page(message.finding)
        id_ = message.finding.id
        # The URL comes from the configuration and holds none of Slack's control characters.
        parts.append(f"<{page}|{id_}>" if page else id_)
        parts.append(f"<{self.runbook(message.finding)}|runbook>")
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


def _plain(text: str, most: int) -> dict[str, Any]:
    """Text in which Slack looks for no signs, emoji or mentions."""
    text = visible(text, lines=True)
    if len(text) > most:
        text = text[: most - 1] + "…"
    return {"type": "plain_text", "text": text, "emoji": False}


def _header(text: str) -> dict[str, Any]:
    return {"type": "header", "text": _plain(text, _MAX_HEADER)}


def _section(name: str, text: str) -> dict[str, Any]:
    return {"type": "section", "text": _plain(f"{name}\n{text}", _MAX_SECTION)}


def _fields(facts: list[tuple[str, str]]) -> dict[str, Any]:
    fields = [_plain(f"{name}\n{value}", 1900) for name, value in facts]
    return {"type": "section", "fields": fields}


def _context(text: str) -> dict[str, Any]:
    marked = {"type": "mrkdwn", "text": _cut(text, _MAX_SECTION), "verbatim": True}
    return {"type": "context", "elements": [marked]}
