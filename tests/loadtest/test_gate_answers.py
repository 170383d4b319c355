"""A good answer is one that was looked at; what is wrong with the access is no verdict."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.gates import gate, plan
from tests.support.load_server import Server, written
from tests.support.ports import free_port
from understudy.common.codecs import ModelSpec, Undecodable, decode_exchange
from understudy.loadtest.engine.answer import MOST_ERRORS, Successful, count_error, http_error
from understudy.loadtest.payloads.checks import Checks, format_of, rows_of
from understudy.loadtest.payloads.request import Payload

SECRET = "t0psecret"  # of a test


def words(text: str) -> str:
    return " ".join(text.split())


def run(folder: Path, url: str, text: str, *more: object) -> tuple[int, str, dict[str, Any]]:
    """Exit code, output and result of a short gate; the secret is in none of its reports."""
    files = {name: folder / f"r.{name}" for name in ("html", "json", "xml")}
    stages = "objectives: {errors: 10 %}\nstages: [{name: s, load: {rate: 60/s, seconds: 2s}}]\n"
    found = gate("--target", url, "--plan", plan(folder, stages + text), "--html", files["html"],
                 "--json-file", files["json"], "--junit", files["xml"], *more)  # fmt: skip
    for file in files.values():
        assert not file.exists() or SECRET not in file.read_text()
    assert SECRET not in found.output
    result = json.loads(files["json"].read_text()) if files["json"].exists() else {}
    return found.exit_code, words(found.output), result


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/redirect/v1/models/m:predict", "status 307: redirect to /elsewhere"),
        ("/error/v1/models/m:predict", "an error in a 2xx response"),
        ("/text/v1/models/m:predict", "response is not JSON"),
        ("/v2/models/m/infer", "no prediction in the response"),
        ("/v1/chat/completions", "no prediction in the response"),
        ("/broken/x", "status 503"),
        ("/missing/x", "status 404"),
        ("/auth/x", "status 401"),
    ],
)
def test_a_target_without_a_good_answer_is_not_measured(
    tmp_path: Path, path: str, said: str
) -> None:
    with Server() as server:
        code, output, result = run(tmp_path, server.url, f"payloads: {{path: '{path}'}}")
    assert (code, said in output) == (2, True), output
    assert "NOT MEASURED" in output
    assert (result["verdict"], result["stages"]) == ("not measured", [])
    assert said in result["why"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("payloads: {path: '/v1/models/m:predict'}", 0),
        ("payloads: {path: '/gzip/v1/models/m:predict'}", 0),
        ("payloads: {path: /x}\nchecks: {format: kserve-v1}", 0),
        ("payloads: {path: /x}\nchecks: {format: open-inference-v2}", 2),
        ("payloads: {path: /v2/models/m/infer}\nchecks: {format: none}", 0),
        ("payloads: {path: /x, format: mlflow, template: {instances: [[1]]}}", 0),
        ("payloads: {path: '/redirect/v1/models/m:predict'}\nchecks: {statuses: [307]}", 0),
        ("payloads: {path: /x}\nchecks: {statuses: [204]}", 2),
    ],
)
def test_answers_are_looked_at_by_their_format(tmp_path: Path, text: str, code: int) -> None:
    with Server() as server:
        found, output, _ = run(tmp_path, server.url, text)
    assert found == code, output


def test_reports_begin_with_what_was_not_looked_at(tmp_path: Path) -> None:
    with Server() as server:
        code, output, result = run(tmp_path, server.url, "payloads: {path: /x}")
        assert (code, output.startswith("answers were not looked at")) == (0, True), output
        assert result["notes"][0].startswith("answers were not looked at, only their status")
        page = (tmp_path / "r.html").read_text()
        assert page.index("answers were not looked at") < page.index("<table>")
        checked = gate("--target", server.url, "--plan", tmp_path / "gate.yaml", "--check")
        assert "note: answers were not looked at" in words(checked.output)
        _, output, result = run(tmp_path, server.url, "payloads: {path: '/v1/models/m:predict'}")
        assert not any("looked at" in note for note in [output, *result["notes"]])
        written(tmp_path, "b.jsonl", '{"a": 1}\n{"body": 1, "path": "/v1/models/m:predict"}\n')
        text = "payloads: {bodies: b.jsonl, path: /x}"
        assert "answers to 1 of 2 payloads were not" in run(tmp_path, server.url, text)[1]


def test_a_flaky_server_is_measured_and_fails(tmp_path: Path) -> None:
    """Preflight tries again: only what never answers well is a fault of access."""
    for _ in range(3):  # half of the answers fail: five of the first five, once in 32
        with Server() as server:
            code, output, result = run(tmp_path, server.url, "payloads: {path: /flaky/x}")
        if code == 1:
            break
    assert code == 1, output
    assert "status 500" in " ".join(result["stages"][0]["why"])


def test_access_is_checked_before_any_stage(tmp_path: Path) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    code, output, _ = run(tmp_path, away, "")
    assert (code, "cannot be reached: refused" in output) == (2, True), output
    with Server() as server:
        hang = "payloads: {path: /hang}\nengine: {timeout: 1s}"
        code, output, _ = run(tmp_path, server.url, hang)
        assert (code, "did not answer within 1 s" in output) == (2, True), output
        other = f"""
            objectives: {{errors: 10 %}}
            stages:
              - {{name: s, load: {{rate: 60/s, seconds: 2s}}}}
              - {{name: c, compare: {{other: "{away}", load: {{rate: 30/s, seconds: 1s}}}}}}
            """
        found = gate("--target", server.url, "--plan", plan(tmp_path, other))
        assert (found.exit_code, "requests" in found.output) == (2, False), found.output
        assert "cannot be reached" in found.output


def test_secrets_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, "b.jsonl", '{"body": 1, "headers": {"authorization": "Bearer ${TOKEN}"}}\n')
    ways = (
        "payloads: {path: /auth/x, headers_env: {authorization: TOKEN_HEADER}}",
        "payloads: {path: /auth/x, headers: {authorization: 'Bearer ${TOKEN}'}}",
        "payloads: {path: /auth/x, bodies: b.jsonl}",
    )
    with Server() as server:
        for text, name in zip(ways, ("TOKEN_HEADER", "TOKEN", "TOKEN"), strict=True):
            monkeypatch.delenv(name, raising=False)
            code, output, _ = run(tmp_path, server.url, text, "--check")
            assert (code, f"variable {name} is not set" in output) == (2, True), output
            monkeypatch.setenv("TOKEN", SECRET)
            monkeypatch.setenv("TOKEN_HEADER", f"Bearer {SECRET}")
            assert run(tmp_path, server.url, text)[0] == 0
            # The server sends the headers of the request back with its 404.
            refused = run(tmp_path, server.url, text.replace("/auth/", "/missing/"))
            assert (refused[0], "authorization: ***" in refused[1]) == (2, True), refused[1]
        monkeypatch.setenv("HERE", server.url)
        file = plan(tmp_path, "target: ${HERE}\nobjectives: {errors: 0 %}\n"
                    "payloads: {template: {a: '$${x}', b: $5}}\n"
                    "stages: [{name: s, load: {rate: 1/s}}]")  # fmt: skip
        assert gate("--plan", file, "--check").exit_code == 0
    for wrong in ("${A-B}", "${A", "${}", "${A:-b}"):
        code, output, _ = run(tmp_path, server.url, f"payloads: {{headers: {{a: '{wrong}'}}}}")
        assert (code, "payloads.headers.a" in output) == (2, True), output
        assert "is not a variable" in output


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text("ab"),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["predictions", "outputs", "error", "name", "shape", "datatype", "data"]),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(VALUES, st.sampled_from(["mlflow", "kserve-v1", "open-inference-v2"]))
def test_the_gate_and_the_service_agree_on_what_has_a_prediction(value: Any, form: str) -> None:
    body, kind = json.dumps(value).encode(), b"content-type: application/json"
    read = decode_exchange(ModelSpec("m", protocol=form), "/x", b"", b"{}", 200, kind, body)
    wrong = Checks(formats=[form])(0, 200, kind, body)
    assert bool(wrong) == isinstance(read.predictions, Undecodable), (wrong, read.predictions)


ROWS = {
    "kserve-v1": ({"instances": [[1], [2]]}, [{"predictions": [1, 2]}], [{"predictions": [1]}]),
    "mlflow": (
        {"dataframe_split": {"columns": ["a"], "data": [[1], [2]]}},
        [{"predictions": [1, 2]}, {"predictions": [{"p": 1}, {"p": 2}]}, [1, 2]],
        [{"predictions": [1, 2, 3]}, {"predictions": 1}],
    ),
    "open-inference-v2": (
        {"inputs": [{"name": "x", "shape": [2, 1], "datatype": "FP64", "data": [1, 2]}]},
        [{"outputs": [{"name": "y", "shape": [2, 3], "datatype": "FP64", "data": [1, 2, 3, 4, 5, 6]}]}],
        [{"outputs": [{"name": "y", "shape": [1], "datatype": "FP64", "data": [1]}]}],
    ),
    "openai": (
        {"input": ["a", "b"]},
        [{"data": [{"embedding": [1]}, {"embedding": [2]}]}],
        [{"data": [{"embedding": [1]}]}],
    ),
}  # fmt: skip
"""By format, a request for two rows, answers to it, and answers to other requests."""


@pytest.mark.parametrize("form", ROWS)
def test_an_answer_has_as_many_rows_as_its_request(form: str) -> None:
    request, good, bad = ROWS[form]
    body = json.dumps(request).encode()
    packed = Payload(gzip.compress(body), headers={"content-encoding": "gzip"})
    kind = b"content-type: application/json"
    for payload in (Payload(body), packed):
        checks = Checks(formats=[form], rows=[rows_of(form, payload)])
        assert checks.rows == [2]
        for answer in good:
            assert checks(0, 200, kind, json.dumps(answer).encode()) == "", answer
        for answer in bad:
            assert "in the response to 2" in checks(0, 200, kind, json.dumps(answer).encode()), (
                answer
            )
    lenient = Checks(formats=[form])
    assert all(lenient(0, 200, kind, json.dumps(answer).encode()) == "" for answer in (*good, *bad))


@pytest.mark.parametrize(
    ("form", "body"),
    [
        (None, b'{"instances": [[1]]}'),
        ("kserve-v1", b""),
        ("kserve-v1", b"no json"),
        ("kserve-v1", b'{"a": 1}'),
        ("open-inference-v2", b'{"inputs": []}'),
        ("openai", b'{"input": "text"}'),
        ("openai", b'{"input": [1, 2, 3]}'),
        ("openai", b'{"messages": []}'),
        ("openai", b"[]"),
    ],
)
def test_where_rows_are_not_known_they_are_not_compared(form: str | None, body: bytes) -> None:
    assert rows_of(form, Payload(body)) is None


def test_answers_for_other_rows_are_a_fault_of_access_and_fail(tmp_path: Path) -> None:
    """The server answers one prediction, whatever it is asked."""
    text = "payloads: {path: '/v1/models/m:predict', template: {instances: [[1], [2]]}}\n"
    with Server() as server:
        code, output, _ = run(tmp_path, server.url, text)
        assert code == 2
        assert "1 rows in the response to 2" in words(output)
        for good in (text + "checks: {row_count: any}\n", text.replace(", [2]", "")):
            code, output, _ = run(tmp_path, server.url, good)
            assert code == 0, output
        file = written(
            tmp_path, "b.jsonl", '{"instances": [[1]]}\n' * 9 + '{"instances": [[1], [2]]}\n'
        )
        mixed = f"payloads: {{path: '/v1/models/m:predict', bodies: {file}}}\n"
        code, _, result = run(tmp_path, server.url, mixed)
        assert code in (1, 2), "a tenth of the answers is wrong, and a tenth is allowed"
        errors = result["stages"][0]["load"]["errors"]
        assert set(errors) == {"1 rows in the response to 2"}


@pytest.mark.parametrize(
    ("body", "good"),
    [
        (b'{"choices": [{"message": {"content": "a"}}]}', True),
        (b'{"choices": [{"text": "a"}]}', True),
        (b'{"choices": []}', False),
        (b'{"choices": [{"message": null}]}', False),
        (b'{"data": [{"embedding": [0.1]}]}', True),
        (b'{"output": [{"type": "message"}]}', True),
        (b'{"error": {"message": "x"}, "choices": [{"text": "a"}]}', False),
        (b'data: {"choices": [{"text": "a"}]}\n\ndata: [DONE]\n\n', True),
        (b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n', True),
        (b'data: {"choices": [{"text": "a"}]}\n\n', False),
        (b'data: {"error": {"message": "x"}}\n\ndata: [DONE]\n\n', False),
        (b"data: [DONE]\n\n", False),
        (b"data: {\n\n", False),
    ],
)
def test_answers_of_openai_s_api(body: bytes, good: bool) -> None:
    kind = b"content-type: " + (
        b"text/event-stream" if body.startswith(b"data") else b"application/json"
    )
    assert (Checks(formats=["openai"])(0, 200, kind, body) == "") == good


def test_formats_are_known_by_the_path() -> None:
    assert format_of("/a/v1/models/m:predict?x=1", "auto") == "kserve-v1"
    assert format_of("/v2/models/m/infer", "auto") == "open-inference-v2"
    assert format_of("/invocations", "auto") == "mlflow"
    assert format_of("/v1/chat/completions", "auto") == "openai"
    assert format_of("/v2/health/ready", "mlflow") is None, "that asks for no prediction"
    assert format_of("/x", "auto") is None
    assert format_of("/x", "mlflow") == "mlflow"


def test_only_2xx_is_a_success() -> None:
    for status in range(200, 600):
        assert (http_error(status, b"") == "") == (status < 300)
        assert Successful()(0, status, b"", b"") == http_error(status, b"")
    assert http_error(301, b"location: https://a/b?key=1") == "status 301: redirect to https://a/b"
    assert len(http_error(301, b"location: /" + b"x" * 9999)) < 300
    errors: dict[str, int] = {}
    for number in range(1000):
        count_error(errors, str(number))
    assert (len(errors), sum(errors.values())) == (MOST_ERRORS + 1, 1000)
