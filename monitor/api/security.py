"""Access: who may change state, and who may see single records.

With a token in the environment, every call that changes state needs it as a bearer token. Without
one such calls are allowed only while the API listens on a loopback address, and only when they do
not come from a web page of somebody else: a browser tells where a call comes from, and a page that
got hold of our address by a name of its own (DNS rebinding) gives that name as the host.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from understudy.common.http import is_loopback
from understudy.monitor.evidence.settings import Settings


def _host(header: str) -> str:
    try:
        return urlsplit("//" + header).hostname or ""
    except ValueError:
        return ""


def token_of(settings: Settings) -> str | None:
    """The configured token; None if it is not set in the environment."""
    return os.environ.get(settings.token_env) or None if settings.token_env else None


def refuse_change(settings: Settings, headers: Mapping[str, str]) -> tuple[int, str] | None:
    """Why a call that changes state is refused, as ``(status, message)``; None if it is allowed."""
    token = token_of(settings)
    if token is not None:
        scheme, _, presented = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not presented:
            return 401, "this call needs the header 'Authorization: Bearer <token>'"
        if not hmac.compare_digest(presented.strip().encode(), token.encode()):
            return 403, "the bearer token is not the configured one"
        return None
    if not is_loopback(settings.control_host):
        name = settings.token_env or "control.token_env"
        return 403, (
            f"no token is configured and the API listens on {settings.control_host}: set the"
            f" environment variable {name} for the service, or listen on 127.0.0.1"
        )
    return refuse_foreign(settings, headers)


def refuse_records(settings: Settings, headers: Mapping[str, str]) -> tuple[int, str] | None:
    """Why single records are not shown, as ``(status, message)``; None if they are. They need the
    token when the API is open to other machines."""
    if is_loopback(settings.control_host):
        return refuse_foreign(settings, headers)
    return refuse_change(settings, headers)


def refuse_foreign(settings: Settings, headers: Mapping[str, str]) -> tuple[int, str] | None:
    """Refuse requests from other origins' web pages to an API that listens on loopback."""
    if not is_loopback(settings.control_host):
        return None
    host = headers.get("host", "")
    if not is_loopback(_host(host)):
        return 403, f"the API listens on loopback and does not answer for the host {host!r}"
    origin = headers.get("origin")
    if origin and origin.rpartition("//")[2] != host:
        return 403, "calls from pages of another origin are not accepted"
    return None
