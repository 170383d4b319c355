"""Messages about requests that are not valid: the place, the value, and what it must be."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import httpx
import pytest
from fastapi import Body, FastAPI, Query

from understudy.monitor.api.app import prepare

app = FastAPI()
prepare(app)


@app.get("/get/{number}")
async def get(
    number: int,
    limit: Annotated[int, Query(ge=1, le=10)] = 1,
    kind: Literal["x", "y"] = "x",
    who: Annotated[str, Query(max_length=3)] = "a",
    since: float | None = None,
) -> dict[str, Any]:
    return {}


@app.post("/post")
async def post(data: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
    return {}


async def said(method: str, path: str, **more: Any) -> tuple[int, str]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://understudy") as client:
        answer = await client.request(method, path, **more)
    error: dict[str, str] = answer.json()["error"]
    return answer.status_code, error["message"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/get/x", "path.number: must be a whole number (found 'x')"),
        ("/get/1?limit=99", "query.limit: must be less than or equal to 10 (found '99')"),
        ("/get/1?limit=", "query.limit: must be a whole number (found '')"),
        ("/get/1?kind=z", "query.kind: must be 'x' or 'y' (found 'z')"),
        ("/get/1?who=abcd", "query.who: must have at most 3 characters (found 'abcd')"),
        ("/get/1?since=y", "query.since: must be a number (found 'y')"),
        ("/get/1?kind=z&limit=0", "query.limit: must be greater than or equal to 1 (found '0'); "
         "query.kind: must be 'x' or 'y' (found 'z')"),
    ],
)  # fmt: skip
async def test_parameters(path: str, message: str) -> None:
    assert await said("GET", path) == (422, message)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("body", "kind", "code", "message"),
    [
        (b'{"a": 1,}', "application/json", 422, "the body is not valid JSON: "),
        (b"{", "application/json", 422, "(character 2)"),
        (b"[]", "application/json", 422, "body: must be a mapping (found [])"),
        (b"", "application/json", 422, "body: is required"),
        (b"a=1", "application/x-www-form-urlencoded", 422,
         "the body must be JSON: send it with content-type: application/json"),
        (b"\xff{", "application/json", 400, "the body is not valid JSON: it is not UTF-8"),
    ],
)  # fmt: skip
async def test_bodies(body: bytes, kind: str, code: int, message: str) -> None:
    found = await said("POST", "/post", content=body, headers={"content-type": kind})
    assert found[0] == code
    assert message in found[1]
