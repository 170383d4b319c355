"""The part of the configuration that says which topics of others are evaluated, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from understudy.monitor.config.fields import ModelName, Pointer
from understudy.monitor.config.section import Section

Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$", examples=["predictions"])]
Where = Annotated[dict[str, Pointer], Field(min_length=1)] | Pointer
"""Name to pointer; or one pointer to an object, every member of which is a column."""


class MessageMapping(Section):
    """Field mapping of a plain JSON message, as JSON pointers (RFC 6901).

    A pointer to a list gives one cell for each row. A message may be an exchange, a label, or both.
    """

    request_id: Pointer = Field(examples=["/id"])
    """Request id, by which labels are joined to predictions."""
    time: Pointer | None = Field(default=None, examples=["/timestamp"])
    """Start of the request: ISO 8601, or Unix time in seconds or milliseconds; default: the time of
    the Kafka message."""
    model: Pointer | None = Field(default=None, examples=["/model/name"])
    """Name of a configured model; default: that of the source."""
    version: Pointer | None = None
    """Version, if several models with that name are configured."""
    arm: Pointer | None = Field(default=None, examples=["/variant"])
    """Arm that responded: the name of the champion or of a challenger; default: the champion."""
    features: Where | None = Field(default=None, examples=[{"age": "/input/age"}, "/input"])
    """Inputs of the model."""
    predictions: Where | None = Field(default=None, examples=[{"score": "/output/score"}])
    """Outputs of the model."""
    label: Pointer | None = Field(default=None, examples=["/outcome"])
    """True outcome."""
    reward: Pointer | None = None
    """Reward: the value of the response, as a number."""
    labelled_at: Pointer | None = None
    """When the outcome became known; default: the time of the message."""
    latency: Pointer | None = Field(default=None, examples=["/took_ms"])
    """Latency of the response."""
    latency_unit: Literal["s", "ms", "us", "ns"] = "ms"
    """Unit of the latency."""
    status: Pointer | None = Field(default=None, examples=["/status"])
    """HTTP status of the response; default: 200."""
    error: Pointer | None = None
    """Error field: any value other than null, false or an empty text means that the model
    failed."""
    trace_id: Pointer | None = None
    """Trace id of the request."""
    unit: Pointer | None = Field(default=None, examples=["/customer"])
    """Unit of the request, if experiments assign by unit."""

    @model_validator(mode="after")
    def _something(self) -> MessageMapping:
        if not (self.features or self.predictions or self.label or self.reward):
            raise ValueError("maps nothing: give features and predictions, or label or reward")
        return self


class SourceTopic(Section):
    """A topic of another producer, evaluated as if the sidecar had seen the requests."""

    topic: Topic
    """Topic name."""
    format: Literal["cloudevents", "json"]
    """cloudevents: as KServe's payload logger sends them, a request and a response with the same
    id, in binary or structured mode. json: an object, read by the mapping."""
    model: ModelName | None = None
    """Configured model of its messages, if the messages do not name one."""
    version: str = ""
    """Version, if several models with that name are configured."""
    json_: MessageMapping | None = Field(default=None, alias="json")
    """Field mapping, for the format json."""

    @model_validator(mode="after")
    def _mapped(self) -> SourceTopic:
        if (self.format == "json") != (self.json_ is not None):
            raise ValueError("json: is required with the format json, and only with it")
        if self.version and self.model is None:
            raise ValueError("version: has no meaning without a model")
        return self
