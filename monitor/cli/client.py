"""The control API as the command sees it."""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

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
        """The same for what is no JSON."""
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
            request = Request(address, body, headers, method=method)
            with urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
                content: bytes = answer.read()
                return content
        except HTTPError as error:
            raise ApiError(_message(error, address), error.code) from error
        except (URLError, OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise ApiError(
                f"no answer from {address} ({reason}): is 'understudy serve' running? If it listens"
                " elsewhere, name the address of 'control.listen' with --url",
                0,
            ) from error


def _message(error: HTTPError, address: str) -> str:
    try:
        message = str(json.loads(error.read())["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{address} answered {error.code}: is this the control address of an Understudy?"
    if error.code in (401, 403):
        return f"{message} (the token is taken from the environment variable {TOKEN})"
    return message


def path_of(name: str, rest: str = "") -> str:
    """Of an experiment."""
    return f"/v1/experiments/{quote(name, safe='')}{rest}"
