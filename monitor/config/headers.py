"""Headers of requests to model servers: values, and what counts as a client's credential."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from understudy.common.problems import NOT_SHOWN
from understudy.monitor.config.fields import File, HeaderName, Variable
from understudy.monitor.config.section import Section
from understudy.monitor.records.credentials import CREDENTIAL_HEADERS, CREDENTIAL_QUERY

_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?")
_PATTERN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def is_header_value(text: str) -> bool:
    """Whether ``text`` can be the value of a header: visible ASCII, without space at the ends."""
    return _VALUE.fullmatch(text) is not None


def _value(text: str) -> str:
    if not is_header_value(text):
        raise PydanticCustomError(
            NOT_SHOWN,
            "not a valid header value: use visible ASCII, without space at the ends (the value is "
            "not shown here)",
        )
    return text


def _pattern(text: str) -> str:
    if not _PATTERN.fullmatch(text) or not text.strip("*"):
        raise ValueError(f"not a valid name: {text!r} (* stands for any text: x-*-secret)")
    return text.lower()


Pattern = Annotated[str, AfterValidator(_pattern)]
CredentialsTo = Literal["remove", "forward"]


def _listed(patterns: tuple[str, ...]) -> str:
    return ", ".join(f"`{pattern}`" for pattern in patterns)


class Credentials(Section):
    """What counts as a client's credential. It is never shown, and not sent to model servers with
    `credentials: remove`, the default of challengers. Upper and lower case, and - and _, are
    treated alike."""

    headers: list[Pattern] = Field(
        default=[],
        examples=[["x-tenant-key"]],
        description=f"Headers, besides {_listed(CREDENTIAL_HEADERS)}; * stands for any text.",
    )
    query: list[Pattern] = Field(
        default=[],
        examples=[["tenant-key"]],
        description=f"Query parameters, besides {_listed(CREDENTIAL_QUERY)}.",
    )


class Header(Section):
    """A header's value; plain text stands for `{value: TEXT}`. Values of `env` and `file` are read
    at the start and at each reload, and not shown."""

    value: Annotated[str, AfterValidator(_value)] | None = None
    """The value, if it is not a secret."""
    env: Variable | None = None
    """Environment variable with the value."""
    file: File | None = None
    """File with the value, such as a mounted secret; white space at its ends is removed."""
    prefix: str = Field(default="", max_length=256, examples=["Bearer "])
    """Text before the value of `env` or `file`."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, data: Any) -> Any:
        return {"value": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _one(self) -> Header:
        given = [name for name in ("value", "env", "file") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("give one of value, env and file")
        if self.prefix and self.value is not None:
            raise ValueError("prefix is for env and file: write it into the value")
        if self.prefix and not is_header_value(self.prefix + "x"):
            raise ValueError("prefix: use visible ASCII, without space at its beginning")
        return self


Headers = dict[HeaderName, Header]
