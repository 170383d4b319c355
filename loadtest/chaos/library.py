"""Ready experiments, by the name of their fault, to print, change and run.

Faults of processes identify them by the port on which they listen; faults of the network need a
fault proxy (``understudy fault-proxy``) in front of the server. Faults of Kafka fail if no client
is connected through the proxy, since clients may bypass it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from understudy.loadtest.chaos import actions
from understudy.loadtest.errors import PlanError
from understudy.loadtest.faultproxy.toxics import DEFAULTS

_API = "http://127.0.0.1:8474"


@dataclass(frozen=True, slots=True)
class Fault:
    """``func`` of :mod:`understudy.loadtest.chaos.actions` with default ``arguments``; ``undo``
    is the name under which it is undone."""

    title: str
    func: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    undo: str = ""


def _proxied(
    title: str, kind: str, proxy: str = "model", used: bool = False, **attributes: float
) -> Fault:
    at: dict[str, Any] = {"url": _API, "proxy": proxy, "type": kind, "attributes": attributes}
    return Fault(title, "add_fault", {**at, "used": True} if used else at, kind)


_SIDECAR, _WORKER, _PLANE = 8080, "understudy.monitor.proxy", "understudy.monitor.service"
FAULTS: Mapping[str, Fault] = {
    "pause-champion": Fault("The champion stops", "pause_process", {"port": 8081}, "pause"),
    "kill-champion": Fault("The champion is killed", "kill_process", {"port": 8081}, "kill"),
    "pause-challenger": Fault("The challenger stops", "pause_process", {"port": 8082}, "pause"),
    "kill-challenger": Fault("The challenger is killed", "kill_process", {"port": 8082}, "kill"),
    "pause-worker": Fault(
        "A worker stops", "pause_process", {"port": _SIDECAR, "command": _WORKER}, "pause"
    ),
    "kill-worker": Fault(
        "A worker is killed", "kill_process", {"port": _SIDECAR, "command": _WORKER}, "kill"
    ),
    "pause-evaluation": Fault(
        "The evaluation plane stops", "pause_process", {"port": _SIDECAR, "command": _PLANE},
        "pause",
    ),
    "kill-evaluation": Fault(
        "The evaluation plane is killed", "kill_process", {"port": _SIDECAR, "command": _PLANE},
        "kill",
    ),
    "latency": _proxied("Responses are delayed", "latency", latency=200),
    "jitter": _proxied("Responses are delayed, with jitter", "latency", latency=50, jitter=50),
    "bandwidth": _proxied("Bandwidth is limited", "bandwidth", rate=50),
    "reset": _proxied("Connections are reset", "reset_peer", timeout=0),
    "blackhole": _proxied("Responses never arrive", "timeout", timeout=0),
    "slow-close": _proxied("Connections stay half open", "slow_close", delay=2000),
    "truncated": _proxied("Responses are truncated", "limit_data", bytes=20),
    "corrupt": _proxied("Bytes are corrupted", "corrupt", probability=0.01),
    "errors": _proxied("Errors instead of responses", "http_error", status=503, probability=0.2),
    "sidecar-errors": Fault(
        "The sidecar injects errors", "sidecar_errors",
        {"config": "understudy.yaml", "port": _SIDECAR, "share": 0.2, "status": 503}, "errors",
    ),
    "down": _proxied("The model server is down", "down"),
    "kafka-away": _proxied("Kafka is down", "down", "kafka", used=True),
    "kafka-silent": _proxied("Kafka does not respond", "timeout", "kafka", used=True, timeout=0),
    "prometheus-away": _proxied("Prometheus is down", "down", "prometheus"),
    "cpu": Fault("The processor is busy", "cpu_pressure", {"cores": 1, "seconds": 60}, "cpu"),
    "memory": Fault("Memory is short", "memory_pressure", {"mib": 256, "seconds": 60}, "memory"),
    "full-disk": Fault(
        "The disk is full", "fill_disk", {"path": "/var/lib/understudy", "leave_mib": 0}, "disk"
    ),
    "clock": Fault(
        "The clock jumps", "jump_clock", {"file": "/run/faketime", "seconds": 3600}, "clock"
    ),
    "partition": Fault("The network is cut", "cut_link", {"device": "veth0"}, "link"),
}  # fmt: skip


_SELF_ENDING = ("cpu_pressure", "memory_pressure")
"""They end after their own ``seconds``, which must not be shorter than the fault."""


def experiment(
    name: str, changes: Mapping[str, Any], seconds: float, answers: str | None = None
) -> dict[str, Any]:
    """An experiment of the Chaos Toolkit with the fault ``name`` for ``seconds``. ``changes``
    replace its arguments or, for faults of the proxy, its attributes; ``answers`` is a URL that
    must respond before and after. Raises PlanError for an unknown fault or argument."""
    if name not in FAULTS:
        raise PlanError(f"unknown fault {name!r}: choose one of {', '.join(FAULTS)}")
    if not seconds > 0.0:
        raise PlanError(f"fault {name!r} for {seconds:g} s: the duration must be positive")
    fault = FAULTS[name]
    arguments = dict(fault.arguments)
    inner = dict(arguments.get("attributes") or {})
    attributes = DEFAULTS.get(str(arguments.get("type")), {})
    known = [*inspect.signature(getattr(actions, fault.func)).parameters, *attributes]
    for key, value in changes.items():
        if key not in known:
            raise PlanError(f"fault {name!r} has no argument {key!r}: {', '.join(known)}")
        if key in attributes:
            inner[key] = value
        else:
            arguments[key] = value
    if "attributes" in arguments:
        arguments["attributes"] = inner
    if fault.func in _SELF_ENDING and "seconds" not in changes:
        arguments["seconds"] = max(arguments["seconds"], seconds)
    end = {
        "type": "action",
        "name": "undo",
        "provider": _python("actions", "undo", {"name": fault.undo}),
    }
    result: dict[str, Any] = {
        "title": fault.title,
        "description": f"{fault.title}, for {seconds:g} s, under load.",
        "method": [
            {
                "type": "action",
                "name": name,
                "provider": _python("actions", fault.func, arguments),
                "pauses": {"after": seconds},
            },
            end,
        ],
        "rollbacks": [end],
    }
    if answers is not None:
        probe = {
            "type": "probe",
            "name": "responds",
            "tolerance": True,
            "provider": _python("probes", "answers", {"url": answers, "timeout": 2.0}),
        }
        result["steady-state-hypothesis"] = {"title": "It responds", "probes": [probe]}
    return result


def _python(module: str, func: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "python", "module": f"understudy.loadtest.chaos.{module}", "func": func,
        "arguments": dict(arguments),
    }  # fmt: skip
