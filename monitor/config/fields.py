"""Kinds of values in the configuration file: names, addresses, URLs, paths, headers."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, WrapValidator
from pydantic_core import PydanticCustomError

from understudy.common.problems import NOT_SHOWN

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
_URL = re.compile(
    r"(https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?:/[A-Za-z0-9\-._~!$&'()*+,;=:@%/]*)?",
    re.IGNORECASE,
)
HTTP2_SCHEMES = {"h2c": "http", "grpc": "http", "grpcs": "https"}
"""Schemes of model servers that speak HTTP/2, and those of what is below it."""
_PATH = re.compile(r"(?:/[A-Za-z0-9\-._~!$&'()*+,;=:@%/]*)?")
_SOCKET = re.compile(r"unix:(?P<socket>[^:\0]+)(?::(?P<path>/[^:]*))?")
_SEGMENT = re.compile(r"\*(?::[A-Za-z]+)?|[^*]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def split_address(value: str) -> tuple[str, int]:
    """``host:port`` or ``[v6]:port`` as host and port. Raises ValueError."""
    match = _ADDRESS.fullmatch(value)
    if match is None or int(match[2]) > 65535:
        raise ValueError(f"not a valid address: {value!r} (examples: 127.0.0.1:8080, [::1]:8080)")
    return match[1].strip("[]"), int(match[2])


class ServerAddress(NamedTuple):
    """The parts of a model server's URL. ``socket`` is the path of a Unix socket, else None and
    ``host`` and ``port`` hold; ``authority`` is what a Host header says, ``path`` is a prefix of
    request targets without a slash at its end."""

    secure: bool
    host: str
    port: int
    authority: str
    path: str
    socket: str | None
    http2: bool = False
    """Whether its scheme says that the server speaks HTTP/2."""


def server_address(url: str) -> ServerAddress:
    """The parts of a :data:`ServerUrl`."""
    match = _SOCKET.fullmatch(url)
    if match is not None:
        path = (match["path"] or "").rstrip("/")
        return ServerAddress(False, "localhost", 80, "localhost", path, match["socket"])
    parts = urlsplit(url)
    secure = parts.scheme in ("https", "grpcs")
    port = parts.port or (443 if secure else 80)
    path = parts.path.rstrip("/")
    http2 = parts.scheme in HTTP2_SCHEMES
    return ServerAddress(secure, parts.hostname or "", port, parts.netloc, path, None, http2)


def with_socket(url: str, absolute: Callable[[str], str]) -> str:
    """``url`` with the path of its Unix socket made absolute, if it has one."""
    match = _SOCKET.fullmatch(url)
    if match is None:
        return url
    return f"unix:{absolute(match['socket'])}" + (f":{match['path']}" if match["path"] else "")


def is_loopback(address: str) -> bool:
    """Whether only this machine can connect to ``host:port``."""
    host = split_address(address)[0]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _address(value: str) -> str:
    split_address(value)
    return value


def _url(value: str) -> str:
    if "@" in value.partition("://")[2].partition("/")[0]:
        raise PydanticCustomError(
            NOT_SHOWN, "a URL must not contain credentials (the URL is not shown here)"
        )
    if "?" in value or "#" in value:
        raise PydanticCustomError(
            NOT_SHOWN, "a URL must not have a query or fragment (the URL is not shown here)"
        )
    match = _URL.fullmatch(value)
    if match is None and "@" in value:
        raise PydanticCustomError(
            NOT_SHOWN,
            "not a valid URL: write http://host:port or https://host:port (it is not shown here)",
        )
    if match is None:
        raise ValueError(
            f"not a valid URL: {value!r} (write http://host:port or https://host:port, with or "
            "without a path, in ASCII and without spaces)"
        )
    if match["port"] is not None and not 0 < int(match["port"]) < 65536:
        raise ValueError(f"{value!r}: the port must be from 1 to 65535")
    if match["host"].startswith("["):
        try:
            ipaddress.IPv6Address(match["host"][1:-1])
        except ValueError as error:
            raise ValueError(f"{value!r}: not a valid IPv6 address: {error}") from error
    return match[1].lower() + value[len(match[1]) :]


def _server_url(value: str) -> str:
    if not value.startswith("unix:"):
        scheme, mark, rest = value.partition("://")
        below = HTTP2_SCHEMES.get(scheme.lower())
        if not mark or below is None:
            return _url(value)
        return scheme.lower() + _url(f"{below}://{rest}")[len(below) :]
    match = _SOCKET.fullmatch(value)
    if match is None or not _PATH.fullmatch(match["path"] or ""):
        raise ValueError(
            f"not a valid Unix socket: {value!r} (write unix:/run/model.sock, or "
            "unix:/run/model.sock:/path; the name of the socket has no colon)"
        )
    return value


def _model_path(value: str) -> str:
    if not re.fullmatch(r"/[\x21-\x7e]*", value) or "?" in value or "#" in value:
        raise ValueError(
            f"not a valid path: {value!r} (start with /, use ASCII, without query or spaces)"
        )
    if not all(_SEGMENT.fullmatch(segment) for segment in value.split("/")):
        raise ValueError(f"{value!r}: * matches a whole segment, or a segment up to a colon")
    return value


def _path_prefix(value: str) -> str:
    if not re.fullmatch(r"/[\x21-\x7e]*", value) or any(sign in value for sign in "?#*"):
        raise ValueError(
            f"not a valid beginning of a path: {value!r} (start with /, use ASCII, without query, "
            "spaces or *)"
        )
    return value


def _header_name(value: str) -> str:
    if not re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", value):
        raise ValueError(f"not a valid header name: {value!r}")
    return value.lower()


def _header_value(value: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?", value):
        raise ValueError(
            f"not a valid header value: {value!r} (use visible ASCII, without space at the ends)"
        )
    return value


def _variable(value: str) -> str:
    if not _VARIABLE.fullmatch(value):
        raise PydanticCustomError(
            NOT_SHOWN,
            "must be the name of an environment variable, as in UNDERSTUDY_TOKEN; the token itself "
            "must not be in the file (the value is not shown here)",
        )
    return value


def _file(value: str) -> str:
    if not value or "\0" in value:
        raise ValueError(f"not a valid file name: {value!r}")
    return value


def _workers(value: object, _: object) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 256:
        return value
    raise ValueError(f"{value!r} must be auto, or a number from 1 to 256")


def _different(value: list[str]) -> list[str]:
    twice = sorted({item for item in value if value.count(item) > 1})
    if twice:
        raise ValueError(f"duplicate entry {twice[0]!r}")
    return value


def _rising(value: list[float]) -> list[float]:
    if any(low >= high for low, high in pairwise(value)):
        raise ValueError(f"{value!r} must be strictly increasing")
    return value


NAME = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
Name = Annotated[
    str,
    Field(pattern=NAME, examples=["delays"]),
]
"""A label: letters, digits, dot, dash and underscore, at most 63."""
MODEL_NAME = r"^[^\s\x00-\x1f\x7f*?#\\\"]{1,200}$"
NamePattern = Annotated[
    str, Field(pattern=r"^[^\s\x00-\x1f\x7f?#\\\"]{1,200}$", examples=["meta-llama/*"])
]
"""Names of models, in which ``*`` matches any text."""
ModelName = Annotated[
    str,
    Field(pattern=MODEL_NAME, examples=["delays", "meta-llama/Llama-3-8B"]),
]
"""A model's name as its server spells it, without spaces, quotes, `*`, `?` and `#`."""
Address = Annotated[str, AfterValidator(_address), Field(examples=["127.0.0.1:8080"])]
Url = Annotated[
    str,
    AfterValidator(_url),
    Field(examples=["http://127.0.0.1:8081", "https://models.example/delays"]),
]
ServerUrl = Annotated[
    str,
    AfterValidator(_server_url),
    Field(
        examples=[
            "http://127.0.0.1:8081",
            "https://models.example/delays",
            "grpc://triton:8001",
            "unix:/run/model.sock",
        ]
    ),
]
"""The URL of a model server; :func:`server_address` takes it apart."""
ModelPath = Annotated[
    str, AfterValidator(_model_path), Field(examples=["/v2/models/delays/infer", "/score/*"])
]
PathPrefix = Annotated[str, AfterValidator(_path_prefix)]
"""The beginning of a path."""
HeaderName = Annotated[str, AfterValidator(_header_name)]
HostPattern = Annotated[str, Field(pattern=r"^[A-Za-z0-9*_-][A-Za-z0-9*._-]{0,252}$")]
"""A host name without port, in which ``*`` matches any text."""
HeaderValue = Annotated[str, AfterValidator(_header_value)]
Variable = Annotated[str, AfterValidator(_variable), Field(examples=["UNDERSTUDY_TOKEN"])]
File = Annotated[str, AfterValidator(_file)]
Pointer = Annotated[str, Field(pattern=r"^(/([^~]|~[01])*)?$", examples=["/customer/age"])]
"""A JSON pointer (RFC 6901)."""
Columns = Annotated[list[str], AfterValidator(_different)]
Edges = Annotated[
    list[Annotated[float, Field(allow_inf_nan=False)]],
    AfterValidator(_rising),
    Field(max_length=64, examples=[[0.1, 0.5, 0.9]]),
]
_VERSION = "^[A-Za-z0-9._-]{0,63}$"
AskedVersion = Annotated[
    str,
    Field(pattern=_VERSION),
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": _VERSION}, {"type": "integer", "minimum": 0}],
            "examples": [2],
        }
    ),
]
"""The version of a model that requests ask for."""
Workers = Annotated[
    int | Literal["auto"],
    WrapValidator(_workers),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer", "minimum": 1, "maximum": 256}, {"const": "auto"}],
            "examples": ["auto", 2],
        }
    ),
]
