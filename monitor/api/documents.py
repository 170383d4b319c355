"""Schemas of the API's responses, for the OpenAPI description."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class ErrorBody(BaseModel):
    """What went wrong and what to do about it."""

    code: str = Field(description="A short name of the error.", examples=["unauthorized"])
    message: str = Field(description="What is wrong and what to do.")


class Error(BaseModel):
    """Body of every error response."""

    error: ErrorBody


class Health(BaseModel):
    """The process is alive."""

    status: str = Field(examples=["ok"])


class Readiness(BaseModel):
    """Whether the service is ready for traffic, and if not, why."""

    ready: bool
    problems: list[str] = Field(
        examples=[["worker 1 is not ready", "champion 'champion' cannot be reached"]]
    )
    warnings: list[str] = Field(
        description="Faults that clients do not notice.",
        examples=[["challenger 'candidate' is down, it cannot be reached: it is not compared"]],
    )


class Window(BaseModel):
    """Durations in seconds over one window; None if unknown."""

    model_config = ConfigDict(extra="allow")

    seconds: float = Field(description="Actual length of the window.")
    count: int
    rate: float = Field(description="Requests per second.")
    errors: int = Field(
        description="Outcomes that are the model server's fault: server_error, timeout,"
        " upstream_connect, upstream_reset, overload, garbage, too_large."
    )
    error_rate: float | None
    mean: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    p99_9: float | None
    max: float | None
    outcomes: dict[str, dict[str, Any]] = Field(description="The same figures for each outcome.")


class Arm(BaseModel):
    """One model server: the champion or a challenger."""

    model_config = ConfigDict(extra="allow")

    arm: str = Field(examples=["champion"])
    role: str = Field(
        description="Its place in the routes: serving, mirrored, standby (serves only when another"
        " arm fails) or unused."
    )
    state: str = Field(description="ok, failing, partly_down, down or no_traffic.")
    configured_as: str = Field(description="champion or challenger.")
    shares: list[dict[str, Any]] = Field(
        description="By model: the part of its requests that the arm should serve, and the part"
        " that it served in the last minute."
    )
    diverted_1m: int = Field(
        description="Requests of the last minute that it should have served, but another arm did."
    )
    measured: str = Field(description="What `windows` measure: primary (clients) or mirror.")
    in_flight: int
    windows: dict[str, Window] = Field(description="By window: 10s, 1m, 5m and start.")
    cold_starts: int
    cold_start_seconds: float | None = Field(description="Length of the last cold start.")
    mirror: dict[str, Any] | None = Field(
        description="Of challengers: outcomes, mirrored requests not sent, queue, breaker states."
    )
    language_models: list[dict[str, Any]] = Field(
        description="By model, of the last minute: ttft and tpot (p50 and p99 in seconds), tokens"
        " per second, goodput, finish reasons, and streams that broke. Empty for other models."
    )


class Status(BaseModel):
    """Everything that `understudy top` shows."""

    model_config = ConfigDict(extra="allow")

    time: float = Field(description="Unix time in seconds.")
    version: str
    run: str
    run_seconds: float
    ready: bool
    problems: list[str]
    warnings: list[str] = Field(description="Faults that clients do not notice.")
    config: dict[str, Any] = Field(description="Active generation; error of the last reload.")
    workers: list[dict[str, Any]]
    arms: list[Arm]
    records: dict[str, Any] = Field(
        description="Accounts of the hand-off: eligible = sent + dropped + pending."
    )
    predictions: list[dict[str, Any]]
    undecodable: list[dict[str, Any]]
    served: dict[str, Any] = Field(
        description="Versions of models as their answers say them, and the last changes."
    )
    experiments: list[dict[str, Any]] = Field(description="Each in short; /v1/experiments has all.")
    findings: dict[str, Any] = Field(description="Open ones in short; /v1/findings has all.")
    watched: list[dict[str, Any]] = Field(
        description="Models with a baseline, in short; /v1/drift has all."
    )
    not_tested: list[dict[str, Any]] = Field(
        description="What is declared and not tested at present: the check, the reason, and what is"
        " missing."
    )
    kafka: dict[str, Any] | None = Field(
        None,
        description="With `evaluation: kafka`: what is published, which routes are in force, and"
        " where evaluators can be asked.",
    )


class Model(BaseModel):
    """A declared model, with statistics of its inputs and outputs."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(examples=["delays"])
    version: str = Field(examples=["1"])
    protocol: str = Field(examples=["auto"])
    rows: int = Field(description="Rows of features that were decoded.")
    features: list[dict[str, Any]]
    predictions: list[dict[str, Any]]
    undecodable: list[dict[str, Any]]


class Models(BaseModel):
    """All models."""

    models: list[Model]


class Record(BaseModel):
    """One exchange, redacted by the rules of `records.redact`."""

    model_config = ConfigDict(extra="allow")

    time: str = Field(examples=["2026-01-31T12:00:00.250000+00:00"])
    request_id: str
    model: str
    arm: str
    outcome: str = Field(examples=["ok"])
    status: int | None
    duration_seconds: float
    features: dict[str, Any] | None = Field(
        examples=[{"names": ["age"], "rows": 1, "values": [[41]]}]
    )
    predictions: dict[str, Any] | None


class Records(BaseModel):
    """Recent records, newest first."""

    records: list[Record]
    next: int | None = Field(None, description="`before` of the next page.")


class Reload(BaseModel):
    """The configuration was read again."""

    ok: bool
    generation: int | None = Field(examples=[2])
