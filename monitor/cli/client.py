"""A client of the control API."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from understudy.common.http import Response, call
from understudy.common.unreadable import why_unreadable
from understudy.monitor.cli.address import TOKEN
from understudy.monitor.errors import ApiError, ConfigError

_NO_ROUTE = "Not Found"
"""What a service says of a path that it does not have; of an unknown id it says more."""
_TIMEOUT_SECONDS = 30.0


class Client:
    """Calls the control API at ``url``.

    The bearer token is the content of ``token_file``; without one, that of the environment variable
    UNDERSTUDY_TOKEN if it is set. Raises ConfigError when the file cannot be read or is empty.
    """

    def __init__(self, url: str, token_file: Path | None = None) -> None:
        self.url = url.rstrip("/")
        self.token = os.environ.get(TOKEN, "") if token_file is None else _read_token(token_file)

    def get(self, path: str, seconds: float = _TIMEOUT_SECONDS) -> Any:
        """GET JSON from ``path``; ``seconds`` limits each step of the call. Raises ApiError, which
        says what to do."""
        return json.loads(self._call(path, None, "GET", seconds))

    def text(self, path: str) -> str:
        """GET text from ``path``. Raises ApiError, which says what to do."""
        return self._call(path, None, "GET").decode()

    def post(self, path: str, data: Any) -> Any:
        """POST ``data`` as JSON; returns the response. Raises ApiError."""
        return json.loads(self._call(path, json.dumps(data).encode(), "POST"))

    def delete(self, path: str) -> Any:
        """DELETE ``path``; returns the response. Raises ApiError."""
        return json.loads(self._call(path, None, "DELETE"))

    def _call(
        self, path: str, body: bytes | None, method: str, seconds: float = _TIMEOUT_SECONDS
    ) -> bytes:
        address = self.url + path
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            response = call(address, method, body, headers, timeout_seconds=seconds)
        except OSError as error:
            raise ApiError(
                f"no response from {address} ({error}): is 'understudy serve' running? If it"
                " listens elsewhere, name the address of 'control.listen' with --url",
                0,
            ) from error
        if not 200 <= response.status < 300:
            raise ApiError(_message(response, address), response.status)
        return response.body


def _read_token(path: Path) -> str:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = why_unreadable(path, error)
        raise ConfigError(str(path), [("", f"--token-file cannot be read: {reason}")]) from error
    if not token or not token.isprintable() or not token.isascii():
        message = "--token-file must hold one line: the bearer token"
        raise ConfigError(str(path), [("", message)])
    return token


def _message(response: Response, address: str) -> str:
    try:
        message = str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        found = f"{address} answered {response.status}"
        return (
            f"{found}: is this the control address of an Understudy service? It is 'control.listen'"
            " in its configuration; name it with --url"
        )
    if response.status == 404 and message == _NO_ROUTE:
        return (
            f"{address} does not exist: with `evaluation: kafka`, findings, experiments, drift and "
            "baselines are at an evaluator, and all else at each sidecar; name the other one with "
            "--url"
        )
    if response.status in (401, 403):
        return f"{message} (the token comes from --token-file or the environment variable {TOKEN})"
    return message


def path_of(name: str, rest: str = "") -> str:
    """The path of an experiment in the API."""
    return f"/v1/experiments/{quote(name, safe='')}{rest}"
