"""``understudy doctor``: check a configuration against reality."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import click

from understudy.common.terminal import echo
from understudy.common.unreadable import why_unreadable
from understudy.monitor.cli.options import FILE, json_option
from understudy.monitor.errors import ConfigError

_MARKS = {"ok": "ok     ", "warning": "WARNING", "fault": "FAULT  ", "skipped": "skipped"}


@click.command()
@click.argument("config", type=FILE, default=Path("understudy.yaml"))
@click.option(
    "--request",
    type=FILE,
    help="A file with the body of a request that the model can answer, to check that it is read.",
)
@click.option(
    "--prometheus",
    metavar="URL",
    help="A Prometheus server that should scrape this service.",
)
@click.option(
    "--send-test",
    is_flag=True,
    help="Send a test message to each notification channel, and then that it has closed.",
)
@json_option
def doctor(
    config: Path, request: Path | None, prometheus: str | None, send_test: bool, as_json: bool
) -> None:
    """Check CONFIG against reality: servers, ports, disk, Kafka, notifications, Prometheus.

    Every fault comes with its fix; CONFIG is understudy.yaml by default.

    Model servers: reachable, ready, the model is there, a sample can be read (one request is sent
    to each, where the server describes its inputs or --request is given), clock. This machine:
    ports, disk, permissions, file descriptors. Kafka and its topics, if configured. Notification
    channels: reachable, and credentials where the receiver can check them; no message is sent
    without --send-test. Prometheus, with --prometheus. Run it as the user and on the machine of the
    service, before or while it runs.

    Exits 0 without a fault, 1 with one, 2 when CONFIG is not valid.

    \b
    Examples:
      understudy doctor
      understudy doctor understudy.yaml --request sample.json --json
      understudy doctor understudy.yaml --send-test
      understudy doctor understudy.yaml --prometheus http://127.0.0.1:9091
    """
    from understudy.monitor.doctor.examine import examine

    body = _read(request) if request is not None else None
    checks = []
    for check in examine(config, prometheus_url=prometheus, request=body, send_test=send_test):
        checks.append(check)
        if not as_json:
            echo(f"{_MARKS[check.status]} {check.subject}: {check.text}")
            if check.fix:
                echo(f"        -> {check.fix}")
    counts = Counter(check.status for check in checks)
    faults = counts["fault"]
    if as_json:
        found = {
            "file": str(config),
            "healthy": not faults,
            "faults": faults,
            "warnings": counts["warning"],
            "checks": [check.to_dict() for check in checks],
        }
        echo(json.dumps(found))
    else:
        echo(f"{faults} faults, {counts['warning']} warnings, {counts['ok']} ok")
    sys.exit(1 if faults else 0)


def _read(file: Path) -> bytes:
    try:
        found = file.read_bytes()
    except OSError as error:
        message = f"--request cannot be read: {why_unreadable(file, error)}"
        raise ConfigError(str(file), [("", message)]) from error
    if not found.strip():
        raise ConfigError(str(file), [("", "--request must hold the body of a request: is empty")])
    return found
