"""Runs an experiment of the Chaos Toolkit while load runs.

The format and the run loop are the toolkit's. This module adds repeated checks of the steady-state
hypothesis while the method runs, the times of the faults on the clock of the load, and a guard that
undoes faults when this process is killed.
"""

from __future__ import annotations

import json
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from understudy.common.text import visible
from understudy.common.yaml_text import YamlError, read_text, read_yaml
from understudy.loadtest.chaos import actions
from understudy.loadtest.chaos.guard import Guard
from understudy.loadtest.errors import LoadTestError, PlanError

_UNDOING = ("resume_process", "undo", "wait", "delete_toxic", "reset")
"""Functions of actions that are not faults."""
_CHECK_SECONDS = 0.5
"""Seconds between two checks of the hypothesis while the method runs."""


@dataclass(slots=True)
class ChaosOutcome:
    """The result of an experiment; times are unix seconds. ``faults`` are (begin, end, name) of its
    actions; a fault ends with the action or rollback that undoes it. ``checks`` counts the checks
    of the hypothesis while the method ran; ``deviations`` are the times of those that failed."""

    begun: float
    ended: float
    status: str
    deviated: bool
    faults: list[tuple[float, float, str]] = field(default_factory=list)
    deviations: list[float] = field(default_factory=list)
    checks: int = 0
    probes: list[dict[str, Any]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    guard: Mapping[str, Any] = field(default_factory=dict)


def load_experiment(path: Path) -> dict[str, Any]:
    """An experiment from a JSON or YAML file, validated by the toolkit. Raises PlanError."""
    try:
        from chaoslib.exceptions import ChaosException
        from chaoslib.experiment import ensure_experiment_is_valid
    except ImportError as error:
        raise PlanError(
            "chaos stages need the Chaos Toolkit: pip install 'understudy-serving[load]'"
        ) from error
    try:
        text = read_text(path)
        document = read_yaml(text) if path.suffix in (".yaml", ".yml") else json.loads(text)
    except YamlError as error:
        raise PlanError(f"{path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise PlanError(f"{path}: is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise PlanError(f"{path}: an experiment must be an object")
    try:
        ensure_experiment_is_valid(document)
    except ChaosException as error:
        raise PlanError(f"{path}: {visible(str(error))}") from error
    except (TypeError, AttributeError, KeyError, ValueError) as error:
        # The toolkit looks into parts before it checks of which kind they are.
        raise PlanError(
            f"{path}: is not an experiment of the Chaos Toolkit: a part is of the wrong kind"
        ) from error
    return document


def run_experiment(
    experiment: Mapping[str, Any], log: Callable[[str], None] = print
) -> ChaosOutcome:
    """Run ``experiment``, rollbacks included; ``log`` receives progress messages.

    Raises LoadTestError when it cannot start.
    """
    from chaoslib.experiment import run_experiment as run
    from chaoslib.types import Strategy

    for name in ("logzero_default", "chaostoolkit"):
        # It logs expected failures as critical; its journal has what matters.
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    with tempfile.TemporaryDirectory(prefix="understudy-chaos-") as folder:
        guard = Guard(Path(folder) / "guard.json")
        actions.guard = guard
        stop = threading.Event()
        checker = _HypothesisChecker()
        thread = threading.Thread(
            target=checker.run, args=(dict(experiment), stop), daemon=True, name="hypothesis"
        )
        begun = time.time()
        try:
            log("the method starts")
            if experiment.get("steady-state-hypothesis"):
                thread.start()
            journal = run(
                json.loads(json.dumps(experiment)),
                settings={"runtime": {"rollbacks": {"strategy": "always"}}},
                strategy=Strategy.DEFAULT,
            )
        except Exception as error:  # the toolkit raises many types
            raise LoadTestError(f"the experiment could not run: {error}") from error
        finally:
            stop.set()
            if thread.is_alive():
                thread.join(10.0)
            remaining = list(actions._active)
            if remaining:
                log(f"undoing {len(remaining)} faults without a rollback")
            try:
                actions.undo()
            except LoadTestError as error:
                log(str(error))
            actions.guard = None
            report = guard.end()
        ended = time.time()
    ran = ChaosOutcome(begun, ended, str(journal.get("status")), bool(journal.get("deviated")))
    ran.guard = report
    ran.deviations, ran.checks = checker.deviations, checker.checks
    if report["failed"]:
        ran.errors += [str(why) for why in report["failed"]]
    rollbacks = [_unix_time(one["end"]) for one in journal.get("rollbacks", ()) if one.get("end")]
    over = max(rollbacks, default=ended)
    for one in journal.get("run", ()):
        activity = one["activity"]
        if one.get("status") == "failed":
            ran.errors.append(
                f"{activity['name']}: {(one.get('exception') or ['failed'])[-1]}".strip()
            )
        if activity["type"] == "action" and not _undoes(activity):
            ran.faults.append((_unix_time(one["start"]), over, str(activity["name"])))
        elif activity["type"] == "probe":
            ran.probes.append(
                {
                    "name": activity["name"],
                    "at": _unix_time(one["end"]),
                    "output": one.get("output"),
                    "ok": one.get("status") == "succeeded" and one.get("tolerance_met", True),
                }
            )
    _shorten(ran, journal)
    for one in journal.get("rollbacks", ()):
        if one.get("status") == "failed":
            ran.errors.append(f"rollback {one['activity']['name']} failed")
    return ran


def _undoes(activity: Mapping[str, Any]) -> bool:
    provider = activity.get("provider") or {}
    return str(provider.get("func", "")) in _UNDOING


def _shorten(ran: ChaosOutcome, journal: Mapping[str, Any]) -> None:
    """End each fault with the action of the method that undoes it, if there is one."""
    ends = [
        _unix_time(one["end"]) for one in journal.get("run", ())
        if one["activity"]["type"] == "action" and _undoes(one["activity"])
        and one["activity"].get("provider", {}).get("func") != "wait" and one.get("end")
    ]  # fmt: skip
    ran.faults = [
        (begin, min([at for at in ends if at >= begin], default=end), name)
        for begin, end, name in ran.faults
    ]


def _unix_time(text: str) -> float:
    when = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp()


class _HypothesisChecker:
    """Checks the hypothesis while the method runs; the toolkit checks only before and after it."""

    def __init__(self) -> None:
        self.deviations: list[float] = []
        self.checks = 0

    def run(self, experiment: dict[str, Any], stop: threading.Event) -> None:
        from chaoslib.configuration import load_configuration
        from chaoslib.hypothesis import run_steady_state_hypothesis
        from chaoslib.run import EventHandlerRegistry
        from chaoslib.secret import load_secrets

        configuration = load_configuration(experiment.get("configuration") or {})
        secrets = load_secrets(experiment.get("secrets") or {}, configuration)
        while not stop.wait(_CHECK_SECONDS):
            hypothesis = run_steady_state_hypothesis(
                json.loads(json.dumps(experiment)), configuration, secrets, None,
                EventHandlerRegistry(),
            )  # fmt: skip
            self.checks += 1
            if not hypothesis.get("steady_state_met"):
                self.deviations.append(time.time())
