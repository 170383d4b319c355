"""``understudy validate``: a round, now."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from understudy.common.terminal import echo
from understudy.monitor.cli.options import config_option, json_option
from understudy.monitor.errors import ValidationCaseError


@click.command("validate")
@config_option("The configuration, with its section `validation`.")
@json_option
def validate(config_path: Path, as_json: bool) -> None:
    """Send the validation cases to the champion and every challenger, once.

    Exits 0 when all pass, 1 when one fails, 2 when the cases cannot be read.

    \b
    Example:
      understudy validate --config understudy.yaml
    """
    from understudy.monitor.config.load import load
    from understudy.monitor.health.validation.rehearsal import Validation

    config = load(config_path)
    if config.validation is None:
        raise ValidationCaseError(
            f"{config_path}: `validation` is missing: add it with the file of the cases, as in "
            "`validation: {cases: cases.jsonl}`"
        )
    room = Validation(config)
    passed = room.round()
    if room.error is not None:
        raise ValidationCaseError(room.error)
    found = room.summary()
    if as_json:
        echo(json.dumps(found))
    else:
        for group in found["groups"]:
            total = group["passed"] + group["failed"]
            echo(f"{group['arm']}: {group['passed']} of {total} {group['kind']} cases pass")
            for failure in group["failures"]:
                echo(f"  {failure['case']}: {failure['wrong']}")
    sys.exit(0 if passed else 1)
