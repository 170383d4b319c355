"""What of a client's request a model server gets: credentials, removed headers, and headers set.

Other tools mirror requests with everything in them (Envoy's request_mirror_policies, nginx's
mirror, Istio, GoReplay): a challenger, which another team may run, then has every client's keys.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.proxy import Message, Server, post, sidecar
from tests.support.proxy_split import BY_REQUEST, divided
from understudy.monitor.config.compile import compile_plan
from understudy.monitor.config.load import parse
from understudy.monitor.proxy.outgoing import RequestFilter
from understudy.monitor.records.credentials import CREDENTIAL_HEADERS, CREDENTIAL_QUERY
from understudy.monitor.routing.plan import Plan, Upstream

SECRET = b"hunter2"
CREDENTIALS = [
    b"Authorization: Bearer hunter2",
    b"AUTHORIZATION:Basic hunter2",
    b"Proxy-Authorization: Basic hunter2",
    b"X-Serverless-Authorization: Bearer hunter2",
    b"Cookie: session=hunter2",
    b"X-API-Key: hunter2",
    b"x_api_key: hunter2",
    b"api-key: hunter2",
    b"apikey: hunter2",
    b"X-Goog-Api-Key: hunter2",
    b"Ocp-Apim-Subscription-Key: hunter2",
    b"x-functions-key: hunter2",
    b"X-Auth-Token: hunter2",
    b"X-Amz-Security-Token: hunter2",
    b"Cf-Access-Jwt-Assertion: hunter2",
    b"X-Forwarded-Access-Token: hunter2",
    b"x-tenant: hunter2",
]
OTHERS = [b"Accept: */*", b"X-User: u-1", b"X-Custom_Name: hunter", b"X-Max-Tokens: 12"]
QUERY = (
    "?a=1&api_key=hunter2&KEY=hunter2&k%65y=hunter2&access_token=hunter2;b=2&sig=hunter2"
    "&X-Amz-Signature=hunter2&client_secret=hunter2&token[0]=hunter2&a[api%5Fkey]=hunter2&tenant=hunter2&&c=monkey"
)
TARGET = "/v2/models/m/infer"


def plan_of(champion: int, other: int, **settings: str) -> Plan:
    """As a user's file has it; ``settings`` are lines of YAML by server."""
    text = f"""
version: 1
listen: 127.0.0.1:0
models: [{{name: m}}]
credentials: {{headers: [x-tenant], query: [tenant]}}
champion: {{url: 'http://127.0.0.1:{champion}', {settings.get("for_champion", "")}}}
challengers:
  - {{name: candidate, url: 'http://127.0.0.1:{other}', {settings.get("for_challenger", "")}}}
"""
    return compile_plan(parse(text, "test", Path("/")), 1)


async def sent_to(query: str = QUERY, *lines: bytes, **settings: str) -> tuple[Message, Message]:
    """What the champion and the challenger got of a request that was mirrored."""
    champion, other = await Server().start(), await Server().start()
    async with sidecar(plan_of(champion.port, other.port, **settings)) as side:
        raw = post(b"{}", *CREDENTIALS, *OTHERS, *lines, path=TARGET + query)
        assert (await side.ask(raw)).status == 200
        await side.until(lambda: bool(other.seen))
        removed = side.counter("credentials_removed", arm="candidate")
        assert removed == (SECRET not in other.seen[0].head)
    return champion.seen[0], other.seen[0]


@pytest.mark.anyio
async def test_a_challenger_gets_no_credential_of_a_client() -> None:
    at_champion, at_challenger = await sent_to()
    assert at_champion.first == b"POST %b HTTP/1.1" % (TARGET + QUERY).encode()
    assert set(CREDENTIALS) | set(OTHERS) <= set(at_champion.lines)
    assert SECRET not in at_challenger.head
    assert at_challenger.first == b"POST %b?a=1&b=2&&c=monkey HTTP/1.1" % TARGET.encode()
    assert set(OTHERS) <= set(at_challenger.lines)
    assert at_challenger.body == b"{}"
    for name in ("x-request-id", "content-length"):
        assert at_challenger.header(name) == at_champion.header(name) is not None


@pytest.mark.anyio
async def test_nor_with_a_body_that_is_mirrored_while_it_arrives() -> None:
    champion, other = await Server().start(), await Server().start()
    async with sidecar(plan_of(champion.port, other.port)) as side:
        body = b"x" * 400_000
        raw = post(body, *CREDENTIALS, *OTHERS, path=TARGET + QUERY)
        assert (await side.ask(raw)).status == 200
        await side.until(lambda: bool(other.seen))
        (seen,) = other.seen
        assert SECRET not in seen.head
        assert set(OTHERS) <= set(seen.lines)
        assert seen.body == body


@pytest.mark.anyio
async def test_a_challenger_gets_credentials_when_the_file_allows_it() -> None:
    _, at_challenger = await sent_to(for_challenger="credentials: forward")
    assert at_challenger.first == b"POST %b HTTP/1.1" % (TARGET + QUERY).encode()
    assert set(CREDENTIALS) <= set(at_challenger.lines)


@pytest.mark.anyio
async def test_the_champion_gets_none_when_the_file_says_so() -> None:
    at_champion, _ = await sent_to(for_champion="credentials: remove")
    assert SECRET not in at_champion.head
    assert set(OTHERS) <= set(at_champion.lines)


@pytest.mark.anyio
async def test_a_query_without_credentials_is_sent_as_it_is() -> None:
    for query in ("", "?", "?a", "?a=1;b=%3D&&keys=2&donkey=3&max_tokens=5&=6"):
        for message in await sent_to(query):
            assert message.first == b"POST %b HTTP/1.1" % (TARGET + query).encode()


@pytest.mark.anyio
async def test_headers_are_set_and_removed_in_every_spelling() -> None:
    settings = "headers: {x-env: shadow, authorization: own}, remove_headers: [x-internal, x-user]"
    spoofed = (b"X-Env: mine", b"x_env: mine", b"X-INTERNAL: mine", b"x_internal: mine")
    at_champion, at_challenger = await sent_to(QUERY, *spoofed, for_challenger=settings)
    assert set(spoofed) <= set(at_champion.lines)
    assert b"mine" not in at_challenger.head
    assert at_challenger.header("x-user") is None
    assert at_challenger.header("x-env") == b"shadow"
    assert at_challenger.header("authorization") == b"own"


@pytest.mark.anyio
async def test_generated_headers_can_be_removed_and_set() -> None:
    at_champion, at_challenger = await sent_to(for_challenger="remove_headers: [x-request-id]")
    assert at_champion.header("x-request-id")
    assert at_challenger.header("x-request-id") is None
    _, at_challenger = await sent_to(for_challenger="headers: {x-request-id: none}")
    assert at_challenger.header("x-request-id") == b"none"


@pytest.mark.anyio
async def test_a_challenger_that_serves_clients_gets_no_credential_either() -> None:
    serving = {"credential_headers": CREDENTIAL_HEADERS, "credential_query": CREDENTIAL_QUERY}
    # The unit of the split is a credential itself: the proxy reads it, the challenger does not.
    options = {"unit": "cookie", "unit_name": "session", "weights": (0.0, 1.0)}
    async with divided(serving=serving, **options) as bench:
        raw = post(b"{}", *CREDENTIALS[:-1], *OTHERS, path=TARGET + "?a=1&api_key=hunter2")
        message, record = await bench.record(raw)
        assert (message.body, record.assigned) == (b"candidate", 2)
        (seen,) = bench.other.seen
        assert SECRET not in seen.head
        assert set(OTHERS) <= set(seen.lines)
        assert bench.side.counter("credentials_removed", arm="candidate") == 1


@pytest.mark.anyio
@pytest.mark.parametrize(
    "name", [b"Authorization", b"Proxy-Authorization", b"Cookie", b"X_API_Key", b"X-Auth-Token"]
)
async def test_credentials_are_not_smuggled_in_trailers(name: bytes) -> None:
    serving = {"credential_headers": CREDENTIAL_HEADERS}
    async with divided(serving=serving, weights=(0.0, 1.0), **BY_REQUEST) as bench:
        body = b"2\r\n{}\r\n0\r\n" + name + b": hunter2\r\n\r\n"
        message = await bench.side.ask(post(body, framing=b"Transfer-Encoding: chunked"))
        assert message.status == 400
        assert bench.other.seen == bench.champion.seen == []


def test_kept_lines_are_remembered_and_secrets_are_not() -> None:
    upstream = Upstream("c", "h", 1, credential_headers=CREDENTIAL_HEADERS, credential_query=("k",))
    removed = RequestFilter(upstream)
    for number in range(10_000):
        lines = [b"x-n: %d" % number, b"authorization: %d" % number, b"x-long: " + b"l" * 300]
        assert removed.lines(lines) == [lines[0], lines[2]]
    assert 0 < len(removed._kept) <= 4096
    assert not any(b"authorization" in line for line in removed._kept)
    assert not RequestFilter(replace(upstream, credential_query=(), credential_headers=())).needed
