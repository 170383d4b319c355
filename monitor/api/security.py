"""Access: which callers and which names of the service are accepted.

With a token in the environment, every call that changes state needs it as a bearer token. Once
other machines can connect, reading needs it too, as a bearer token or as the cookie of a page that
has signed in. Without a token, calls that change state are allowed only while the API listens on a
loopback address, and only when they do not come from a web page of another origin.

A page that has signed in also changes something, with a header beside its cookie: a page of another
origin can make a browser send the cookie, and can neither read nor send that header.

A page of another origin can also give its own name our address (DNS rebinding), and then read what
the API answers. A browser sends that name as the host, so requests for names that are not ours are
refused. An address is not a name: it cannot be rebound, and probes and scrapes use it.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import time
from collections.abc import Mapping
from fnmatch import fnmatchcase
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from understudy.common.http import is_loopback
from understudy.monitor.api.access import Access
from understudy.monitor.evidence.settings import Settings

SESSION_SECONDS = 12 * 3600
CSRF_HEADER = "x-understudy-csrf"
"""Of a change by a page that has signed in; its value comes with the session."""
_PRIVATE = ("svc", "local", "internal", "localhost", "home.arpa")
"""Ends of names that the public DNS does not have, so that no foreign page can have such a name."""


def _host(header: str) -> str:
    """The name or address in a ``Host`` header, empty if it has none."""
    try:
        return (urlsplit("//" + header).hostname or "").removesuffix(".")
    except ValueError:
        return ""


def token_of(settings: Settings) -> str | None:
    """The configured token; None if it is not set in the environment."""
    return os.environ.get(settings.token_env) or None if settings.token_env else None


def refuse(
    settings: Settings, access: Access, headers: Mapping[str, str], now: float | None = None
) -> tuple[int, str] | None:
    """Why a call is refused, as ``(status, message)``; None if it is allowed."""
    refused = _refuse_name(settings, headers)
    if refused is not None or access is Access.PUBLIC:
        return refused
    now = time.time() if now is None else now
    if access is Access.READ:
        if is_loopback(settings.control_host):
            return _refuse_foreign(settings, headers)
        if signed_in(settings, headers, now):
            return None
    elif CSRF_HEADER in headers and "authorization" not in headers:
        csrf = csrf_token(settings, headers, now)
        if csrf is not None and hmac.compare_digest(headers[CSRF_HEADER].encode(), csrf.encode()):
            return None
    return _refuse_without_token(settings, headers)


def _refuse_without_token(settings: Settings, headers: Mapping[str, str]) -> tuple[int, str] | None:
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
    return _refuse_foreign(settings, headers)


# Names --------------------------------------------------------------------------------------------


def _configured(settings: Settings, name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in settings.control_hosts)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_private(name: str) -> bool:
    """A name within a cluster or a local network."""
    return "." not in name or name.endswith(tuple(f".{end}" for end in _PRIVATE))


def _refuse_name(settings: Settings, headers: Mapping[str, str]) -> tuple[int, str] | None:
    """Refuse requests for a name that is not the service's."""
    host = headers.get("host")
    if host is None:  # of HTTP/1.0; browsers always send one
        return None
    name = _host(host)
    listens = settings.control_host
    if _is_address(name) or is_loopback(name) or name == listens.lower():
        return None
    if name and (_configured(settings, name) or (not is_loopback(listens) and _is_private(name))):
        return None
    return 403, (
        f"the API does not answer for the host {host[:100]!r}: if it is a name of this service, add"
        " it to control.hosts"
    )


def _refuse_foreign(settings: Settings, headers: Mapping[str, str]) -> tuple[int, str] | None:
    """Refuse requests from other origins' web pages to an API that listens on loopback."""
    host = headers.get("host", "")
    name = _host(host)
    if not (is_loopback(name) or (name and _configured(settings, name))):
        return 403, f"the API listens on loopback and does not answer for the host {host[:100]!r}"
    origin = headers.get("origin")
    if origin and origin.rpartition("//")[2] != host:
        return 403, "calls from pages of another origin are not accepted"
    return None


# Sessions of the page -----------------------------------------------------------------------------


def cookie_name(settings: Settings) -> str:
    """Cookies are shared by the ports of a host, so the name has the port."""
    return f"understudy-{settings.control_port}"


def _signature(token: str, until: int, may: str = "read") -> str:
    return hmac.new(token.encode(), f"{may} until {until}".encode(), hashlib.sha256).hexdigest()


def session_cookie(settings: Settings, now: float) -> str | None:
    """A ``Set-Cookie`` value that allows reading until it expires; None without a token. ``now`` is
    unix seconds."""
    token = token_of(settings)
    if token is None:
        return None
    until = int(now) + SESSION_SECONDS
    return (
        f"{cookie_name(settings)}={until}.{_signature(token, until)}; Max-Age={SESSION_SECONDS};"
        " Path=/; HttpOnly; SameSite=Strict"
    )


def signed_in(settings: Settings, headers: Mapping[str, str], now: float) -> bool:
    """Whether the request has a valid cookie of :func:`session_cookie`."""
    return _session(settings, headers, now) is not None


def csrf_token(settings: Settings, headers: Mapping[str, str], now: float) -> str | None:
    """What :data:`CSRF_HEADER` has to be for a change with the request's cookie; None without a
    valid one."""
    token, until = token_of(settings), _session(settings, headers, now)
    if token is None or until is None:
        return None
    return _signature(token, until, "change")


def _session(settings: Settings, headers: Mapping[str, str], now: float) -> int | None:
    """Until when the session of the request's cookie lasts; None without a valid one."""
    token = token_of(settings)
    given = headers.get("cookie", "")
    if token is None or not given:
        return None
    try:
        morsel = SimpleCookie(given).get(cookie_name(settings))
    except CookieError:
        return None
    until, _, signature = (morsel.value if morsel is not None else "").partition(".")
    if not (until.isascii() and until.isdigit() and len(until) < 12 and int(until) > now):
        return None
    valid = hmac.compare_digest(signature.encode(), _signature(token, int(until)).encode())
    return int(until) if valid else None
