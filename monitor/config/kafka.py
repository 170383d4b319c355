"""The part of the configuration that declares the Kafka cluster and its use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from understudy.common.fields import Bytes, Seconds
from understudy.monitor.config.fields import File, Url, Variable, split_address
from understudy.monitor.config.section import Section

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
    """TLS settings for the protocols SSL and SASL_SSL."""

    ca: File | None = None
    """PEM file with trusted CAs; default: the system's."""
    certificate: File | None = None
    """PEM file with the client certificate, if brokers require one."""
    key: File | None = None
    """PEM file with the client key."""
    check_hostname: bool = True
    """Verify that a broker's certificate matches its host name."""

    @model_validator(mode="after")
    def _pair(self) -> KafkaTls:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: give both or neither")
        return self


class KafkaSecurity(Section):
    """Authentication and encryption."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """Security protocol of the brokers' listener."""
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    """For the SASL protocols."""
    username: str | None = Field(default=None, min_length=1)
    """For the SASL protocols."""
    password_env: Variable | None = None
    """Environment variable with the password."""
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
    """The on-disk spool for blocks that Kafka does not have yet."""

    path: File | None = None
    """Folder; default: `spool` in the state folder."""
    max_size: Bytes = Field(default=1024 * 1024 * 1024, ge=8 * 1024 * 1024)
    """Maximum size; above it, the oldest blocks are dropped and counted."""


class Kafka(Section):
    """The Kafka cluster, for `evaluation: kafka`."""

    bootstrap: Annotated[list[str], AfterValidator(_brokers), Field(min_length=1)]
    """Bootstrap brokers as host:port; a single broker may be plain text."""
    prefix: Prefix = "understudy"
    """Prefix of the topics (`<prefix>.records`, `.labels`, `.routes`, `.state` and so on), and name
    of the evaluators' consumer group."""
    format: Literal["blocks", "cloudevents"] = "blocks"
    """blocks: columnar blocks, which evaluators read. cloudevents: one CloudEvent per request and
    per response, as KServe's logger sends them, for other consumers."""
    partitions: int = Field(default=12, ge=1, le=MOST_PARTITIONS)
    """Number of partitions of the records, labels and state topics. It must be equal for all
    sidecars and evaluators; to change it, use a new prefix."""
    replication: int = Field(default=3, ge=1, le=9)
    """Replication factor of topics that `understudy kafka init` creates."""
    security: KafkaSecurity = KafkaSecurity()
    """Authentication and encryption."""
    source: str | None = Field(default=None, min_length=1, max_length=128)
    """Name of this sidecar in blocks; default: the host name (the pod)."""
    spool: KafkaSpool = KafkaSpool()
    """The on-disk spool."""
    linger: Seconds = 1.0
    """Maximum time that records wait for their block to fill."""
    compression: Literal["none", "gzip", "zstd"] = "zstd"
    """Compression of CloudEvents batches; blocks have their own compression."""
    evaluators: Url | None = None
    """URL of the evaluators' control API, returned to clients that ask a sidecar about experiments
    or findings."""
    timeout: Seconds = 10.0
    """Timeout of a broker, after which another one is tried."""

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
