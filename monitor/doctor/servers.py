"""Model servers: whether they answer, what they speak, and whether a sample can be read."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from urllib.parse import quote, unquote

from understudy.common.codecs import Undecodable, decode_exchange
from understudy.common.units import spoken
from understudy.monitor.config.compile import rewrite_of, rewrites_of
from understudy.monitor.config.header_values import Values
from understudy.monitor.config.model import Config, Model, Server
from understudy.monitor.config.payloads import path_of, spec_of
from understudy.monitor.discovery.askers import asker_of
from understudy.monitor.discovery.asking import Asks, Reply
from understudy.monitor.discovery.calls import CallAsker
from understudy.monitor.discovery.sample import sample_of
from understudy.monitor.discovery.server import (
    MLFLOW,
    SELDON,
    TORCHSERVE,
    V1,
    V2,
    FoundServer,
    discover,
)
from understudy.monitor.doctor.check import Check, fault, ok, skipped, warning
from understudy.monitor.proxy.rewriting import Rewriter

_SKEW_SECONDS = 5.0
"""Clocks that differ by more put records and labels into the wrong order."""
_MOST_OTHERS = 10
"""Models of a server that are checked without being listed."""
_NAME = re.compile(r"/v[12]/models/([^/:]+)")
_READABLE = (V2, V1, MLFLOW, SELDON, TORCHSERVE)


def servers(config: Config, values: Values, request: bytes | None) -> Iterator[Check]:
    """Check every model server. ``request`` is the body of a sample; without one, it is made from
    what the server says of its inputs, where it does."""
    for server in (config.champion, *config.challengers):
        yield from _server(config, server, values, request)


def _server(
    config: Config, server: Server, values: Values, request: bytes | None
) -> Iterator[Check]:
    role = "champion" if server is config.champion else f"challenger {server.name}"
    headers = {name: values[server.name, name] for arm, name in values if arm == server.name}
    if server.host:
        headers["Host"] = server.host
    try:
        tls = _context(server)
        name = server.tls.server_name if server.tls is not None else None
        with asker_of(server.url, 5.0, headers, tls, name, server.http2 or False) as asker:
            yield from _asked(config, role, server, asker, request)
    except OSError as error:
        yield fault(
            role,
            f"no answer from {server.url} ({error})",
            "start the model server, or correct its `url` (and `tls`)",
        )


def _context(server: Server) -> ssl.SSLContext | None:
    """TLS as the workers use it. Raises OSError for files that cannot be read."""
    tls = server.tls
    if tls is None:
        return None
    context = ssl.create_default_context(cafile=tls.ca)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    return context


def _asked(
    config: Config, role: str, server: Server, asker: Asks, request: bytes | None
) -> Iterator[Check]:
    started = time.monotonic()
    first = asker.get("/")
    seconds = time.monotonic() - started
    listed = [model for model in config.models if model.match is None]
    found = discover(asker, server.url, [_name(server, model) for model in listed])
    if found.ready is False:
        yield fault(
            role,
            f"{server.url} says that it is not ready ({found.description})",
            "wait until its models are loaded, and look at its log",
        )
    else:
        yield ok(role, f"{server.url} answers in {spoken(seconds)}: {found.description}")
    yield from _clock(role, first)
    for model in listed:
        yield from _model(role, model, server, found, asker, request)
    match = next((model for model in config.models if model.match is not None), None)
    if match is not None:
        known = {_name(server, model) for model in listed}
        others = [one.name for one in found.models if one.name not in known]
        if not others:
            text = "the server lists no further ones: names come from requests"
            yield ok(f"other models of {role}", text)
        for name in others[:_MOST_OTHERS]:
            yield from _model(role, match.named(name), server, found, asker, request)


def _clock(role: str, reply: Reply) -> Iterator[Check]:
    try:
        theirs = parsedate_to_datetime(reply.headers["date"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return
    skew = theirs - time.time()
    if abs(skew) > _SKEW_SECONDS:
        side = "ahead of" if skew > 0 else "behind"
        yield warning(
            f"clock of {role}",
            f"it is {spoken(abs(skew))} {side} the clock of this machine",
            "synchronise both clocks (chrony, systemd-timesyncd): times of records and labels are "
            "compared",
        )
    else:
        yield ok(f"clock of {role}", "it agrees with the clock of this machine")


def _model(
    role: str,
    model: Model,
    server: Server,
    found: FoundServer,
    asker: Asks,
    request: bytes | None,
) -> Iterator[Check]:
    subject = f"model {model.name} of {role}"
    if not model.read:
        yield ok(subject, "its payloads are not read (`read: false`)")
        return
    known = {one.name: one for one in found.models}
    own, name = _sent(server, model), _name(server, model)
    listed = V2 in found.protocols or V1 in found.protocols
    if listed and model.paths is None and name not in known:
        names = ", ".join(known) or "none"
        yield fault(
            subject,
            f"the server has no model {name!r} (it has: {names})",
            "correct `models[].name`, name its paths in `models[].paths`, or load the model",
        )
        return
    if isinstance(asker, CallAsker) and asker.model_ready(name) is False:
        yield fault(
            subject,
            f"the server says that the model {name!r} is not ready (ModelReady)",
            "wait until it is loaded, and look at the log of the server",
        )
        return
    one = known.get(name) or next(iter(known.values()), None)
    sample = sample_of(one) if one is not None and one.protocol in _READABLE else None
    named = model.paths is not None or model.protocol != "auto"
    path = own if named or own != path_of(model) or sample is None else sample.path
    if isinstance(asker, CallAsker):
        path = f"/v2/models/{quote(name, safe='')}/infer"
    if request is None and (sample is None or not sample.fits):
        yield skipped(
            subject,
            "the server does not describe the inputs: give a request that it can answer with "
            "--request FILE, to check whether it can be read",
        )
        return
    body = request if request is not None else sample.body if sample is not None else b""
    what = "ModelInfer" if isinstance(asker, CallAsker) else f"POST {path}"
    yield _read(subject, model, path, body, asker.post(path, body), what)


def _sent(server: Server, model: Model) -> str:
    """The path of the model's requests, as the server gets it."""
    path = path_of(model).encode()
    return Rewriter(rewrites_of(server), rewrite_of(server)).target(path)[0].decode()


def _name(server: Server, model: Model) -> str:
    """The name of the model on that server."""
    rewritten = server.rewrite_path or rewrite_of(server) is not None
    found = _NAME.search(_sent(server, model)) if rewritten else None
    return unquote(found[1]) if found is not None else model.name


def _read(subject: str, model: Model, path: str, body: bytes, reply: Reply, what: str) -> Check:
    if not 200 <= reply.status < 300:
        text = reply.body[:200].decode("utf-8", "replace")
        return warning(
            subject,
            f"{what} with a sample got status {reply.status}: {text}",
            "give a request that the model can answer with --request FILE",
        )
    kept = _lines(reply.headers)
    json_type = b"content-type: application/json"
    decoded = decode_exchange(spec_of(model), path, json_type, body, reply.status, kept, reply.body)
    for part, table in (("request", decoded.features), ("answer", decoded.predictions)):
        if isinstance(table, Undecodable):
            detail = f": {table.detail}" if table.detail else ""
            return fault(
                subject,
                f"the {part} of {what} cannot be read ({table.reason}{detail})",
                "name the wire format in `models[].protocol`, or set `read: false`; "
                "docs/codecs.md explains the reasons",
            )
    features, predictions = decoded.features, decoded.predictions
    assert not isinstance(features, Undecodable)
    assert not isinstance(predictions, Undecodable)
    return ok(
        subject,
        f"a sample is read as {decoded.protocol}: {len(features.names)} features, predictions "
        f"{', '.join(predictions.names[:5])}",
    )


def _lines(headers: Mapping[str, str]) -> bytes:
    """The headers that codecs need."""
    names = ("content-type", "content-encoding", "inference-header-content-length")
    # The body was decompressed by the client.
    kept = [f"{name}: {headers[name]}" for name in names if name in headers]
    return "\r\n".join(line for line in kept if not line.startswith("content-enc")).encode()
