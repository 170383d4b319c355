"""Another name or version of the model in a request, for a challenger on the same server.

What names the model is replaced and nothing else: a segment of the path, members of the JSON body,
headers, or fields of a gRPC message. A request in which nothing could be replaced would reach
another model than the one that is meant, so it is not sent.

Pure functions over bytes, and no input or output.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, cast
from urllib.parse import quote, unquote

from understudy.common.grpc_messages import FramingError, framed
from understudy.common.grpc_messages import frames as messages
from understudy.common.protobuf import ProtobufError, fields
from understudy.monitor.proxy.target import rewritten, spellings
from understudy.monitor.routing.plan import Rewrite

_PATHS = (
    re.compile(
        rb"(?P<before>.*/v2/models/)(?P<model>[^/]+)"
        rb"(?P<between>/versions/)?(?(between)(?P<version>[^/]+))(?P<after>/[a-z_]+)?"
    ),
    re.compile(
        rb"(?P<before>.*/v1/models/)(?P<model>[^/]+?)"
        rb"(?P<between>/versions/)?(?(between)(?P<version>[^/:]+))"
        rb"(?P<after>:(?:predict|classify|regress|explain))"
    ),
    re.compile(
        rb"(?P<before>.*/predictions/)(?P<model>[^/]+)"
        rb"(?P<between>/)?(?(between)(?P<version>[^/]+))(?P<after>)"
    ),
)
"""Paths that name a model: in the V2 and V1 protocols, and TorchServe's."""
_BETWEEN = (b"/versions/", b"/versions/", b"/")
"""What is between name and version."""
_CACHED = 1024
_CACHED_BYTES = 256
MODEL_MEMBERS = ("model", "model_name")
VERSION_MEMBERS = ("model_version",)
"""Members of a JSON object that name the model, or its version."""
MODEL_HEADERS = frozenset(
    (
        *(b"seldon-model", b"x-model-name", b"mm-model-id", b"mm-vmodel-id"),
        b"x-amzn-sagemaker-target-model",
    )
)
VERSION_HEADERS = frozenset((b"x-model-version", b"x-amzn-sagemaker-target-variant"))
"""Headers that name the model, or its version, in lower case."""
DIGESTS = frozenset(
    (
        *(b"content-digest", b"repr-digest", b"digest", b"content-md5"),
        *(b"x-amz-content-sha256", b"signature", b"signature-input"),
    )
)
"""Headers that do not hold any longer once the request has changed (RFC 9530, RFC 9421)."""
_NAME, _VERSION = 0x0A, 0x12
"""Tags of the fields of a message with the model's name and version."""
_SPACE = re.compile(r"[ \t\n\r]*")
_scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


class Rewriter:
    """Rewrites requests to one model server by the rules of ``rewrite``, after those of
    ``prefixes``: beginnings of targets and what replaces them."""

    def __init__(self, prefixes: Sequence[tuple[bytes, bytes]], rewrite: Rewrite | None) -> None:
        self._prefixes = tuple(prefixes)
        self._names: Mapping[str, str] = dict(rewrite.names) if rewrite is not None else {}
        self._version = rewrite.version if rewrite is not None else ""
        self._needed = rewrite is not None
        self._headers = (MODEL_HEADERS if any(self._names.values()) else frozenset()) | (
            VERSION_HEADERS if self._version else frozenset()
        )
        self._known: dict[bytes, tuple[bytes, bool]] = {}
        """By path: the path to send, and whether the body has to name the model."""

    def target(self, target: bytes) -> tuple[bytes, bool]:
        """The target to send, and whether the body has to be rewritten as well, since the target
        does not say which model is meant.

        >>> from understudy.monitor.routing.plan import Rewrite
        >>> Rewriter((), Rewrite((("*", "m-v2"),), "2")).target(b"/v2/models/m/infer?a")
        (b'/v2/models/m-v2/versions/2/infer?a', False)
        """
        path, mark, query = target.partition(b"?")
        found = self._known.get(path)
        if found is None:
            found = self._path(path)
            if len(path) <= _CACHED_BYTES:
                if len(self._known) >= _CACHED:
                    self._known.clear()
                self._known[path] = found
        return found[0] + mark + query, found[1]

    def _path(self, path: bytes) -> tuple[bytes, bool]:
        sent = rewritten(path, self._prefixes) if self._prefixes else path
        if not self._needed or sent != path:
            return sent, False
        for spelled in spellings(path):
            for pattern, between in zip(_PATHS, _BETWEEN, strict=True):
                match = pattern.fullmatch(spelled)
                if match is not None:
                    return self._named(match, between), False
        return path, True

    def _named(self, match: re.Match[bytes], between: bytes) -> bytes:
        before, model, version, after = match.group("before", "model", "version", "after")
        name = self._name(unquote(model.decode("latin-1"), "utf-8"))
        if name is not None:
            model = quote(name, safe=":@!$&'()*+,;=-._~").encode()
            version = quote(self._version, safe="").encode() or version
        versions = between + version if version else b""
        return before + model + versions + (after or b"")

    def _name(self, name: str) -> str | None:
        """The name to ask for instead of a model's; None if requests for it are left alone."""
        found = self._names.get(name, self._names.get("*"))
        return name if found == "" else found

    def wants_body(self, target: bytes, lines: Sequence[bytes]) -> bool:
        """Whether the body has to be rewritten: neither target nor headers name the model."""
        if not self._needed or not self.target(target)[1]:
            return False
        return all(line.partition(b":")[0].lower() not in self._headers for line in lines)

    def lines(self, lines: list[bytes]) -> list[bytes]:
        """The header lines to send: with the other name and version, without digests."""
        if not self._needed:
            return lines
        kept = []
        for line in lines:
            name = line.partition(b":")[0].lower()
            if name in DIGESTS:
                continue
            if name in self._headers:
                line = self._line(line)
            kept.append(line)
        return kept

    def _line(self, line: bytes) -> bytes:
        name, _, value = line.partition(b":")
        if name.lower() in VERSION_HEADERS:
            return name + b": " + self._version.encode()
        found = self._name(value.strip().decode("latin-1"))
        if found is None or not found.isascii():
            return line
        return name + b": " + found.encode()

    def body(self, body: bytes, lines: Sequence[bytes] = ()) -> bytes | None:
        """The JSON body with the other name and version; None if it is not JSON, or does not say
        what is to be replaced.

        All else stays as it is, byte for byte. ``lines`` are the header lines: a compressed body
        is not rewritten.

        >>> from understudy.monitor.routing.plan import Rewrite
        >>> Rewriter((), Rewrite((("m", "m-v2"),))).body(b'{"model": "m", "n": 1.50}')
        b'{"model": "m-v2", "n": 1.50}'
        """
        if any(_is_coded(line) for line in lines):
            return None
        try:
            text = body.decode()
            members = list(_members(text))
        except (ValueError, RecursionError):
            return None
        replacements = list(self._replacements(members))
        named = [
            name
            for (key, value, *_), name in zip(members, replacements, strict=True)
            if key in MODEL_MEMBERS and isinstance(value, str)
        ]
        if not named:
            return None
        if all(name is None for name in named):
            # Of another model, which the configuration leaves alone.
            return body
        parts, at = [], 0
        replaced = not self._version
        for (key, value, begin, end), other in zip(members, replacements, strict=True):
            if other is None:
                continue
            replaced = replaced or key in VERSION_MEMBERS or other != value
            parts += [text[at:begin], json.dumps(other, ensure_ascii=False)]
            at = end
        # With the same name and no version, it would be the same model.
        return "".join((*parts, text[at:])).encode() if replaced else None

    def _replacements(self, members: Sequence[tuple[str, Any, int, int]]) -> Iterator[Any]:
        for key, value, _, _ in members:
            if key in MODEL_MEMBERS and isinstance(value, str):
                yield self._name(value)
            elif key in VERSION_MEMBERS and self._version and type(value) in (str, int):
                number = type(value) is int and self._version.isdecimal()
                yield int(self._version) if number else self._version
            else:
                yield None

    def grpc(self, frames: bytes) -> bytes | None:
        """gRPC-framed ``ModelInferRequest`` messages (or others whose fields 1 and 2 are the
        model's name and version) with the other name and version.

        None if the frames are not whole, a message is compressed or not protobuf, or it names no
        model.

        >>> from understudy.monitor.routing.plan import Rewrite
        >>> Rewriter((), Rewrite((("*", "n"),))).grpc(bytes((0, 0, 0, 0, 5, 10, 1, 109, 26, 0)))
        b'\\x00\\x00\\x00\\x00\\x05\\n\\x01n\\x1a\\x00'
        """
        parts = []
        try:
            for compressed, begin, end in messages(frames):
                message = None if compressed else self._message(frames[begin:end])
                if message is None:
                    return None
                parts.append(framed(message))
        except (FramingError, ProtobufError):
            return None
        return b"".join(parts)

    def _message(self, message: bytes) -> bytes | None:
        """Raises ProtobufError."""
        name = version = b""
        rest, at = [], 0
        for tag, begin, end in fields(message, 0, len(message)):
            if tag not in (_NAME, _VERSION):
                continue
            start = begin - 1 - len(_length(end - begin))
            if message[start:begin] != bytes((tag,)) + _length(end - begin):
                return None  # a length that is longer than it need be
            rest.append(message[at:start])
            at = end
            # The last one counts, as parsers have it.
            if tag == _NAME:
                name = message[begin:end]
            else:
                version = message[begin:end]
        try:
            replacement = self._name(name.decode())
        except UnicodeDecodeError:
            return None
        if not name:
            return None
        if replacement is None:
            return message
        version = self._version.encode() or version
        head = _text_field(_NAME, replacement.encode())
        if version:
            head += _text_field(_VERSION, version)
        return b"".join((head, *rest, message[at:]))


def _is_coded(line: bytes) -> bool:
    lower = line.lower()
    return lower.startswith(b"content-encoding:") and lower[17:].strip() != b"identity"


def _members(text: str) -> Iterator[tuple[str, Any, int, int]]:
    """The members of a JSON object: name, value, and where the value begins and ends. Raises
    ValueError or RecursionError for other text."""
    skip = _SPACE.match
    at = cast(re.Match[str], skip(text)).end()
    if text[at : at + 1] != "{":
        raise ValueError("not an object")
    at = cast(re.Match[str], skip(text, at + 1)).end()
    if text[at : at + 1] != "}":
        while True:
            if text[at : at + 1] != '"':
                raise ValueError("not a name")
            key, at = scanstring(text, at + 1, True)
            at = cast(re.Match[str], skip(text, at)).end()
            if text[at : at + 1] != ":":
                raise ValueError("not a member")
            begin = cast(re.Match[str], skip(text, at + 1)).end()
            try:
                value, end = _scan(text, begin)
            except StopIteration as error:
                raise ValueError("not a value") from error
            yield key, value, begin, end
            at = cast(re.Match[str], skip(text, end)).end()
            if text[at : at + 1] == "}":
                break
            if text[at : at + 1] != ",":
                raise ValueError("not a member")
            at = cast(re.Match[str], skip(text, at + 1)).end()
    if text[at + 1 :].strip(" \t\n\r"):
        raise ValueError("more than an object")


def _length(size: int) -> bytes:
    """The length of a field, as protobuf writes it."""
    found = b""
    while size > 0x7F:
        found += bytes((size & 0x7F | 0x80,))
        size >>= 7
    return found + bytes((size,))


def _text_field(tag: int, value: bytes) -> bytes:
    return bytes((tag,)) + _length(len(value)) + value
