"""The part of the configuration that says where Kafka is, and how it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from understudy.monitor.config.fields import File, Url, Variable, split_address
from understudy.monitor.config.section import Section
from understudy.monitor.config.units import Bytes, Seconds

MOST_PARTITIONS = 1024
_TLS = frozenset(("SSL", "SASL_SSL"))
_SASL = frozenset(("SASL_PLAINTEXT", "SASL_SSL"))


def _brokers(value: list[str]) -> list[str]:
    for address in value:
        split_address(address)
    return value


Prefix = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$", examples=["understudy"]),
]


class KafkaTls(Section):
    """Certificates for the protocols SSL and SASL_SSL."""

    ca: File | None = None
    """PEM file of the authorities to trust; by default the system's."""
    certificate: File | None = None
    """PEM file with our own certificate, where brokers ask for one."""
    key: File | None = None
    """PEM file with its key."""
    check_hostname: bool = True
    """Whether a broker's certificate must be for the host that was connected to."""

    @model_validator(mode="after")
    def _pair(self) -> KafkaTls:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: give both or neither")
        return self


class KafkaSecurity(Section):
    """How brokers know us, and we them."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """As brokers name their listeners."""
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    """For the SASL protocols."""
    username: str | None = Field(default=None, min_length=1)
    """For the SASL protocols."""
    password_env: Variable | None = None
    """Name of the environment variable that holds the password."""
    tls: KafkaTls = KafkaTls()
    """For the SSL protocols."""

    @model_validator(mode="after")
    def _consistent(self) -> KafkaSecurity:
        if self.protocol in _SASL:
            if self.username is None or self.password_env is None:
                raise ValueError(f"{self.protocol} needs username and password_env")
        elif self.username is not None or self.password_env is not None:
            raise ValueError(f"username and password_env are for SASL, not for {self.protocol}")
        if self.protocol not in _TLS and self.tls != KafkaTls():
            raise ValueError(f"tls is given, but the protocol is {self.protocol}")
        return self


class KafkaSpool(Section):
    """Where blocks wait on disk until Kafka has them."""

    path: File | None = None
    """Its folder; by default `spool` in the state folder."""
    max_size: Bytes = Field(default=1024 * 1024 * 1024, ge=8 * 1024 * 1024)
    """More than that is not kept: the oldest blocks are dropped and counted."""


class Kafka(Section):
    """The Kafka cluster that records go through with `evaluation: kafka`."""

    bootstrap: Annotated[list[str], AfterValidator(_brokers), Field(min_length=1)]
    """Some brokers as host:port; the others are learnt from them. One may stand without a list."""
    prefix: Prefix = "understudy"
    """Of the topics: `<prefix>.records`, `.labels`, `.routes`, `.state` and so on; and the name of
    the group of evaluators."""
    format: Literal["blocks", "cloudevents"] = "blocks"
    """What is published: columnar blocks, which evaluators read, or a CloudEvent for each request
    and each answer, as KServe's logger sends them, for others."""
    partitions: int = Field(default=12, ge=1, le=MOST_PARTITIONS)
    """Of the topics of records, labels and state. All sidecars and evaluators must say the same;
    to change it, begin with another prefix."""
    replication: int = Field(default=3, ge=1, le=9)
    """Copies of each partition; `understudy kafka init` creates topics with so many."""
    security: KafkaSecurity = KafkaSecurity()
    """How brokers know us, and we them."""
    source: str | None = Field(default=None, min_length=1, max_length=128)
    """What this sidecar is called in blocks; by default the name of the host (the pod)."""
    spool: KafkaSpool = KafkaSpool()
    """Where blocks wait until Kafka has them."""
    linger: Seconds = 1.0
    """How long records may wait for their block to fill."""
    compression: Literal["none", "gzip", "zstd"] = "zstd"
    """Of batches of CloudEvents; blocks are compressed by themselves."""
    evaluators: Url | None = None
    """Where the control API of evaluators can be reached: told to who asks a sidecar about
    experiments or findings."""
    timeout: Seconds = 10.0
    """For a broker to answer, before another is asked."""

    @model_validator(mode="before")
    @classmethod
    def _one_broker(cls, data: object) -> object:
        if isinstance(data, dict) and isinstance(data.get("bootstrap"), str):
            addresses = [part.strip() for part in data["bootstrap"].split(",")]
            data = {**data, "bootstrap": addresses}
        return data


def resolved(kafka: Kafka, absolute: Callable[[str], str]) -> Kafka:
    """The same with file names made absolute."""
    tls = kafka.security.tls
    files = {
        name: absolute(path)
        for name in ("ca", "certificate", "key")
        if (path := getattr(tls, name)) is not None
    }
    security = kafka.security.model_copy(update={"tls": tls.model_copy(update=files)})
    spool = kafka.spool
    if spool.path is not None:
        spool = spool.model_copy(update={"path": absolute(spool.path)})
    return kafka.model_copy(update={"security": security, "spool": spool})
