"""Another version or model of the same server as a challenger: its requests have another path."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.proxy import OK, Server, post, sidecar
from understudy.monitor.config.compile import compile_plan, servers_of
from understudy.monitor.config.load import parse
from understudy.monitor.errors import ConfigError
from understudy.monitor.proxy.target import rewritten
from understudy.monitor.routing.plan import Plan


def config_of(port: int, rewrite: str) -> str:
    return f"""
version: 1
listen: 127.0.0.1:0
models: [{{name: m}}]
champion: {{url: 'http://127.0.0.1:{port}/base'}}
challengers:
  - {{name: second, url: 'http://127.0.0.1:{port}/base', rewrite_path: {rewrite}}}
experiments:
  - {{name: e, challengers: [second], metrics: [{{metric: error_rate, margin: 1 pp}}]}}
"""


def plan_of(port: int, rewrite: str) -> Plan:
    return compile_plan(parse(config_of(port, rewrite), "test", Path("/")), 1)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "path", ["/v2/models/m/infer", "/v2/models/m/versions/1/infer?x=/v2/models/m/"]
)
async def test_a_mirrored_request_reaches_the_other_version(path: str) -> None:
    server = await Server(OK).start()
    rewrite = "{/v2/models/m/: /v2/models/m/versions/2/, /v2/models/m/versions/1/: /v2/models/n/}"
    async with sidecar(plan_of(server.port, rewrite)) as side:
        assert (await side.ask(post(b"{}", path=path))).status == 200
        await side.until(lambda: len(server.seen) == 2)
    champion, challenger = (message.first.decode().split(" ")[1] for message in server.seen)
    assert champion == "/base" + path
    other = (
        path.replace("m/versions/1/", "n/", 1)
        if "versions" in path
        else path.replace("m/", "m/versions/2/")
    )
    assert challenger == "/base" + other
    assert [message.body for message in server.seen] == [b"{}", b"{}"]


REWRITES = [(b"/v2/models/m/", b"/v2/models/n/")]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/v2/models/m/infer", b"/v2/models/n/infer"),
        (b"/v2/models/m/infer?a=%0D%0A", b"/v2/models/n/infer?a=%0D%0A"),
        (b"/v2/models/m/a%0D%0Ab", b"/v2/models/n/a%0D%0Ab"),
        (b"//v2/models/%6d/infer?a", b"/v2/models/n/infer?a"),
        (b"/x/../v2/models/m/a%0D%0Ab%20%3Fc", b"/v2/models/n/a%0D%0Ab%20%3Fc"),
        (b"/v2/models/mm/infer", b"/v2/models/mm/infer"),
        (b"/v2//models/other", b"/v2//models/other"),
        (b"*", b"*"),
    ],
)
def test_which_targets_are_rewritten(target: bytes, expected: bytes) -> None:
    assert rewritten(target, REWRITES) == expected


def test_an_experiment_with_another_path_has_another_server() -> None:
    digests = []
    for rewrite in ("{}", "{/v2/models/m/: /v2/models/n/}", "{/v2/models/m/: /v2/models/o/}"):
        config = parse(config_of(1, rewrite), "test", Path("/"))
        digests.append(servers_of(config, config.experiments[0])["second"])
    assert len(set(digests)) == 3


@pytest.mark.parametrize(
    ("rewrite", "message"),
    [
        ("{/v2/model/m/: /x}", "is the beginning of no model's path"),
        ("{v2: /x}", "not a valid beginning of a path: 'v2'"),
        ("{/v2: '/x?y'}", "not a valid beginning of a path: '/x?y'"),
    ],
)
def test_rewrites_that_are_rejected(rewrite: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(config_of(1, rewrite), "test", Path("/"))
    assert message in str(refused.value)
