"""The part of the configuration that says which topics of others are evaluated, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from understudy.monitor.config.fields import Name, Pointer
from understudy.monitor.config.section import Section

Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$", examples=["predictions"])]
Where = Annotated[dict[str, Pointer], Field(min_length=1)] | Pointer
"""Name to pointer; or one pointer to an object, every member of which is a column."""


class MessageMapping(Section):
    """Where things are in a message of plain JSON, as JSON pointers (RFC 6901).

    A pointer to a list gives one cell for each row. A message may be an exchange, a label, or both.
    """

    request_id: Pointer = Field(examples=["/id"])
    """By which labels find their prediction."""
    time: Pointer | None = Field(default=None, examples=["/timestamp"])
    """When the request began: ISO 8601, or an epoch in seconds or milliseconds; by default the time
    of the Kafka message."""
    model: Pointer | None = Field(default=None, examples=["/model/name"])
    """Name of a declared model; by default that of the source."""
    version: Pointer | None = None
    """Its version, where several of that name are declared."""
    arm: Pointer | None = Field(default=None, examples=["/variant"])
    """Who answered: the name of the champion or of a challenger; by default the champion."""
    features: Where | None = Field(default=None, examples=[{"age": "/input/age"}, "/input"])
    """Inputs of the model."""
    predictions: Where | None = Field(default=None, examples=[{"score": "/output/score"}])
    """Its outputs."""
    label: Pointer | None = Field(default=None, examples=["/outcome"])
    """What turned out to be true."""
    reward: Pointer | None = None
    """A number: how much the answer was worth."""
    labelled_at: Pointer | None = None
    """When the outcome became known; by default the time of the message."""
    latency: Pointer | None = Field(default=None, examples=["/took_ms"])
    """How long the answer took."""
    latency_unit: Literal["s", "ms", "us", "ns"] = "ms"
    """What the latency is counted in."""
    status: Pointer | None = Field(default=None, examples=["/status"])
    """The HTTP status of the answer; by default 200."""
    error: Pointer | None = None
    """Where something other than null, false or an empty text stands when the model failed."""
    trace_id: Pointer | None = None
    """The trace that the request belongs to."""
    unit: Pointer | None = Field(default=None, examples=["/customer"])
    """Whom the request is about, where experiments assign by unit."""

    @model_validator(mode="after")
    def _something(self) -> MessageMapping:
        if not (self.features or self.predictions or self.label or self.reward):
            raise ValueError("maps nothing: give features and predictions, or label or reward")
        return self


class SourceTopic(Section):
    """A topic that somebody else writes, and that is evaluated as if we had seen the requests."""

    topic: Topic
    """Its name."""
    format: Literal["cloudevents", "json"]
    """cloudevents: as KServe's payload logger sends them, a request and a response with the same
    id, in binary or structured mode; json: an object, by the mapping."""
    model: Name | None = None
    """The declared model that its messages are of, where they do not say so themselves."""
    version: str = ""
    """Its version, where several of that name are declared."""
    json_: MessageMapping | None = Field(default=None, alias="json")
    """Where things are, for the format json."""

    @model_validator(mode="after")
    def _mapped(self) -> SourceTopic:
        if (self.format == "json") != (self.json_ is not None):
            raise ValueError("json: is needed with the format json, and with no other")
        if self.version and self.model is None:
            raise ValueError("version: has no meaning without a model")
        return self
