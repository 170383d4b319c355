"""From the configuration to client settings: addresses, security, topic names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from understudy.monitor.config.kafka import Kafka
from understudy.monitor.errors import ConfigError, MissingExtraError


class Topics:
    """Names of the topics of a prefix."""

    def __init__(self, prefix: str) -> None:
        self.records = f"{prefix}.records"
        """Blocks of records, or CloudEvents; partition by request id."""
        self.labels = f"{prefix}.labels"
        """Blocks of labels; partition by request id."""
        self.evidence = f"{prefix}.evidence"
        """Rows from stage one of the evaluation to stage two; see :mod:`.partitions`."""
        self.state = f"{prefix}.state"
        """Compacted: the states of evaluators, by partition."""
        self.routes = f"{prefix}.routes"
        """Compacted, one partition: the active assignments."""
        self.dead = f"{prefix}.dead"
        """Messages that could not be read, with the reason."""


def connection(kafka: Kafka, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Arguments for each of kafka-python's clients; the password comes from ``environment``.

    Raises ConfigError if the password is not set, and MissingExtraError without kafka-python.
    """
    try:
        from understudy.monitor.kafka.patches import Client
    except ImportError as error:
        raise MissingExtraError(
            "Kafka needs kafka-python: pip install 'understudy-serving[kafka]'"
        ) from error
    security = kafka.security
    milliseconds = round(kafka.timeout * 1000)
    arguments: dict[str, Any] = {
        "bootstrap_servers": list(kafka.bootstrap),
        "client_id": f"understudy-{kafka.source or 'client'}",
        "kafka_client": Client,
        "security_protocol": security.protocol,
        "request_timeout_ms": milliseconds,
        "bootstrap_timeout_ms": milliseconds,
        "reconnect_backoff_max_ms": 2000,
    }
    if security.protocol.startswith("SASL"):
        name = security.password_env or ""
        password = (os.environ if environment is None else environment).get(name)
        if not password:
            message = f"the environment variable {name} is not set"
            raise ConfigError("configuration", [("kafka.security.password_env", message)])
        arguments["sasl_mechanism"] = security.mechanism
        arguments["sasl_plain_username"] = security.username
        arguments["sasl_plain_password"] = password
    if security.protocol.endswith("SSL"):
        tls = security.tls
        arguments["ssl_cafile"] = tls.ca
        arguments["ssl_certfile"] = tls.certificate
        arguments["ssl_keyfile"] = tls.key
        arguments["ssl_check_hostname"] = tls.check_hostname
    return arguments
