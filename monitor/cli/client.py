"""The control API as the command sees it."""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import quote

from understudy.common.http import Response, call
from understudy.monitor.errors import ApiError

DEFAULT_URL = "http://127.0.0.1:9090"
TOKEN = "UNDERSTUDY_TOKEN"
_TIMEOUT_SECONDS = 30.0


class Client:
    """Calls the API at ``url``, with the token of the environment if there is one."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def get(self, path: str) -> Any:
        """JSON at ``path``. Raises ApiError, which says what to do."""
        return json.loads(self._call(path, None, "GET"))

    def text(self, path: str) -> str:
        """The text at ``path``."""
        return self._call(path, None, "GET").decode()

    def post(self, path: str, data: Any) -> Any:
        """POST ``data``; the answer."""
        return json.loads(self._call(path, json.dumps(data).encode(), "POST"))

    def delete(self, path: str) -> Any:
        """DELETE; the answer."""
        return json.loads(self._call(path, None, "DELETE"))

    def _call(self, path: str, body: bytes | None, method: str) -> bytes:
        address = self.url + path
        headers = {"Content-Type": "application/json"}
        if os.environ.get(TOKEN):
            headers["Authorization"] = f"Bearer {os.environ[TOKEN]}"
        try:
            response = call(address, method, body, headers, timeout_seconds=_TIMEOUT_SECONDS)
        except OSError as error:
            raise ApiError(
                f"no answer from {address} ({error}): is 'understudy serve' running? If it listens"
                " elsewhere, name the address of 'control.listen' with --url",
                0,
            ) from error
        if not 200 <= response.status < 300:
            raise ApiError(_message(response, address), response.status)
        return response.body


def _message(response: Response, address: str) -> str:
    try:
        message = str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        found = f"{address} answered {response.status}"
        return f"{found}: is this the control address of an Understudy?"
    if response.status in (401, 403):
        return f"{message} (the token is taken from the environment variable {TOKEN})"
    return message


def path_of(name: str, rest: str = "") -> str:
    """Of an experiment."""
    return f"/v1/experiments/{quote(name, safe='')}{rest}"
