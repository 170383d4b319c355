"""Headers whose values come from the environment or from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from understudy.monitor.cli.main import main
from understudy.monitor.config.compile import compile_plan, servers_of
from understudy.monitor.config.header_values import LARGEST, values_of, with_values
from understudy.monitor.config.load import load
from understudy.monitor.config.model import Config

SECRET = "hunter2"
BASE = """
version: 1
listen: 127.0.0.1:0
models: [{name: m}]
champion: {url: 'http://127.0.0.1:1', %s}
challengers: [{name: new, url: 'http://127.0.0.1:2'%s}]
%s
"""
SPLIT = "experiments: [{name: e, challengers: [new], mode: split, weights: {new: 0.5}}]"


def configured(folder: Path, champion: str = "", challenger: str = "", more: str = "") -> Path:
    path = folder / "understudy.yaml"
    path.write_text(BASE % (champion, challenger, more))
    return path


def checked(path: Path) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["config", "check", str(path)])
    return result.exit_code, result.output + result.stderr


def headers_of(config: Config, **environment: str) -> tuple[Any, list[tuple[str, str]]]:
    values, problems = values_of(config, environment)
    plan = compile_plan(with_values(config, values), 1)
    return (dict(plan.champion.headers), dict(plan.challengers[0].upstream.headers)), problems


def test_values_come_from_text_environment_and_files(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f" {SECRET}-file\n")
    path = configured(
        tmp_path,
        "headers: {x-env: prod, authorization: {env: MODEL_TOKEN, prefix: 'Bearer '}}",
        ", headers: {X-API-Key: {file: key}, x-v: {value: a b}}",
    )
    found, problems = headers_of(load(path), MODEL_TOKEN=SECRET)
    assert problems == []
    assert found == (
        {"x-env": "prod", "authorization": f"Bearer {SECRET}"},
        {"x-api-key": f"{SECRET}-file", "x-v": "a b"},
    )
    # Without what only the supervisor reads, they are left out.
    plan = compile_plan(load(path), 1)
    assert dict(plan.champion.headers) == {"x-env": "prod"}
    assert SECRET not in load(path).model_dump_json()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot be read: No such file"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"hunter2\r\nx-evil: 1", "has no valid header value"),
        (b"hunter2\x00", "has no valid header value"),
        ("hunter2é".encode(), "has no valid header value"),
        (b"h" * (LARGEST + 1), "has no valid header value"),
    ],
)
def test_a_file_without_a_value_is_an_error_that_names_the_key(
    tmp_path: Path, content: bytes | None, why: str
) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    path = configured(tmp_path, "headers: {authorization: {file: key}}")
    _, ((key, message),) = headers_of(load(path))
    assert key == "champion.headers.authorization"
    assert why in message
    assert str(tmp_path / "key") in message
    assert SECRET not in message
    # On the machine where the file is checked it may be missing.
    code, text = checked(path)
    assert code == 0
    assert f"champion.headers.authorization: warning: the file {tmp_path / 'key'}" in text
    assert SECRET not in text


def test_a_variable_that_is_not_set_is_an_error_that_names_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = configured(tmp_path, challenger=", headers: {x-key: {env: HEADER_KEY}}")
    monkeypatch.delenv("HEADER_KEY", raising=False)
    expected = "challengers[0].headers.x-key", "the environment variable HEADER_KEY is not set"
    assert headers_of(load(path))[1] == [expected]
    assert headers_of(load(path), HEADER_KEY="")[1] == [expected]
    assert "challengers[0].headers.x-key: warning: the environment variable" in checked(path)[1]
    monkeypatch.setenv("HEADER_KEY", SECRET)
    assert checked(path) == (0, f"{path}: valid\n")


@pytest.mark.parametrize(
    ("champion", "message"),
    [
        ("headers: {x: 5}", "champion.headers.x: must be text, or a mapping with env, file, "),
        ("headers: {x: {}}", "champion.headers.x: give one of value, env and file"),
        ("headers: {x: {env: A, file: b}}", "champion.headers.x: give one of value, env and file"),
        ("headers: {x: {vaule: a}}", "unknown key; did you mean 'value'?"),
        ("headers: {x: {value: a, prefix: b}}", "prefix is for env and file"),
        ("headers: {x: {env: A, prefix: ' b'}}", "prefix: use visible ASCII"),
        ('headers: {x: "hunter2\\n"}', "not a valid header value"),
        ("headers: {x: {env: 'hunter2 '}}", "must be the name of an environment variable"),
        ("headers: {host: a}", "headers: host is set by the proxy itself"),
        ("remove_headers: [Content-Length]", "remove_headers: content-length is set by the proxy"),
        ("remove_headers: [x-a], headers: {X-A: b}", "remove_headers: x-a is in headers"),
        ("credentials: drop", "champion.credentials: must be 'remove' or 'forward'"),
    ],
)
def test_what_is_refused(tmp_path: Path, champion: str, message: str) -> None:
    code, text = checked(configured(tmp_path, champion))
    assert code == 2
    assert message in text
    assert SECRET not in text


@pytest.mark.parametrize("pattern", ["''", "'*'", "'a b'", "'é'"])
def test_patterns_of_credentials_that_are_refused(tmp_path: Path, pattern: str) -> None:
    code, text = checked(configured(tmp_path, more=f"credentials: {{headers: [{pattern}]}}"))
    assert code == 2
    assert "credentials.headers[0]: not a valid name" in text


def test_check_says_that_clients_are_served_without_their_credentials(tmp_path: Path) -> None:
    assert "credentials" not in checked(configured(tmp_path))[1], "mirrored: nothing to decide"
    code, text = checked(configured(tmp_path, more=SPLIT))
    assert code == 0
    assert "challengers[0].credentials: warning: credentials of clients" in text
    assert "when new serves clients in e: write `credentials: forward`" in text
    for choice in ("remove", "forward"):
        path = configured(tmp_path, challenger=f", credentials: {choice}", more=SPLIT)
        assert "credentials" not in checked(path)[1]


def test_exchanged_secrets_do_not_make_another_model(tmp_path: Path) -> None:
    def server(headers: str) -> str:
        config = load(configured(tmp_path, f"headers: {headers}", more=SPLIT))
        return servers_of(config, config.experiments[0])["champion"]

    plain = server("{x-model: a}")
    assert plain == server("{x-model: a, authorization: one}")
    assert plain == server("{x-model: a, x-goog-api-key: two, x-other: {env: SECRET}}")
    assert plain != server("{x-model: b}")
