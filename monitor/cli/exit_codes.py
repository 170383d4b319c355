"""What each exit code means: the one table, which docs and the man page print and tests hold every
command to."""

from __future__ import annotations

DONE, NO, WRONG = 0, 1, 2

GENERAL = {
    DONE: "done",
    NO: "the operation failed: the service does not answer or refuses, or a check found something",
    WRONG: "the command line, a file or the configuration is wrong: the message names the place",
}
"""Of every command, where it has no line of its own in :data:`SPECIAL`."""

_DECISION = {
    0: "promote",
    10: "continue: not decided yet",
    11: "rollback",
    12: "invalid: the comparison cannot be believed",
}
_OPEN = {1: "with --exit-code: something is open"}

SPECIAL: dict[str, dict[int, str]] = {
    "baseline diff": {1: "with --exit-code: something is different"},
    "config check": {2: "the configuration is invalid"},
    "demo": {
        0: "Understudy said what it should",
        1: "it did not, or something failed",
        130: "Ctrl-C, or SIGTERM, before the end",
    },
    "doctor": {0: "no fault", 1: "a fault, with its fix", 2: "the configuration is invalid"},
    "drift report": {1: "with --exit-code: something has changed"},
    "evaluate": {
        0: "an orderly stop",
        2: "a retry cannot help: invalid configuration, refused credentials, unfit topics",
    },
    "experiment replay": _DECISION,
    "experiment status": {
        **_DECISION,
        0: "done; with --exit-code: promote",
    },
    "fault-proxy": {2: "the port cannot be used"},
    "findings incidents": _OPEN,
    "findings list": _OPEN,
    "findings show": {1: "with --exit-code: it is open"},
    "findings watch": {1: "with --exit-code: something was open at the last refresh"},
    "gate": {
        0: "passed",
        1: "failed",
        2: "no verdict: inconclusive, not measured, or the plan is invalid",
    },
    "gate compare": {
        0: "nothing got worse",
        1: "something got worse",
        2: "it cannot be told, or a file is damaged",
    },
    "gate fault": {2: "the fault is unknown, or does not take this argument"},
    "gate mesh": {2: "a fault has no counterpart in Chaos Mesh, or the file is not an experiment"},
    "init": {
        0: "the file was written",
        1: "the model server does not answer, or is not recognised",
        2: "the file exists, or an argument is wrong",
    },
    "inject file": {
        1: "with --require: no pod has the sidecar",
        2: "a pod requests the sidecar and cannot get it, or the file cannot be read",
    },
    "kafka init": {1: "Kafka cannot be used, or settings differ from those that are needed"},
    "kafka status": {
        1: "Kafka cannot be used, a topic is missing, or a partition lacks a leader or replicas"
    },
    "objectives": {1: "with --exit-code: the champion misses an objective"},
    "records verify": {1: "something is damaged or missing"},
    "replay": {1: "with --exit-code: there is a finding"},
    "serve": {
        0: "an orderly stop",
        1: "stopped at once",
        2: "it cannot start: invalid configuration, an address or a state folder in use",
    },
    "slo test": {1: "an alert does not fire as predicted, or promtool finds a fault"},
    "try": {
        0: "Ctrl-C, or SIGTERM",
        1: "the model server does not answer or is not recognised, or the sidecar ended",
    },
    "validate": {1: "a case fails", 2: "the cases cannot be read"},
}
"""By command: what differs from :data:`GENERAL`."""
