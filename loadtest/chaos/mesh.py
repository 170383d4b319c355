"""The faults of an experiment as Chaos Mesh resources, for a cluster.

The Chaos Toolkit's actions act on processes of this machine; in Kubernetes the same faults are
resources of Chaos Mesh, which acts on pods. Each action of a method becomes a resource whose
duration is the pause after the action; actions without a counterpart are errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from understudy.loadtest.errors import PlanError

API = "chaos-mesh.org/v1alpha1"
_DEFAULT_SECONDS = 10.0


def resources(
    experiment: Mapping[str, Any], namespace: str, labels: Mapping[str, str]
) -> list[dict[str, Any]]:
    """One resource for each fault of the method, for the pods with ``labels`` in ``namespace``.
    Raises PlanError for a fault without a counterpart, and without faults."""
    if not labels:
        raise PlanError("name the pods: --selector app=model")
    results = []
    for number, activity in enumerate(experiment.get("method", ())):
        provider = activity.get("provider") or {}
        if (
            activity.get("type") != "action"
            or provider.get("module") != "understudy.loadtest.chaos.actions"
        ):
            continue
        func, arguments = str(provider.get("func")), provider.get("arguments") or {}
        if func in ("resume_process", "undo", "wait", "add_proxy"):
            continue  # a resource ends by itself, and pods need no proxy
        seconds = float((activity.get("pauses") or {}).get("after") or _DEFAULT_SECONDS)
        kind, spec = _spec(func, arguments)
        name = re.sub(r"[^a-z0-9]+", "-", str(activity["name"]).lower()).strip("-")[:50]
        if kind != "PodChaos" or spec["action"] != "pod-kill":
            spec["duration"] = f"{seconds:g}s"
        results.append(
            {
                "apiVersion": API,
                "kind": kind,
                "metadata": {"name": f"{name or 'fault'}-{number}", "namespace": namespace},
                "spec": {
                    "mode": "one",
                    "selector": {"namespaces": [namespace], "labelSelectors": dict(labels)},
                    **spec,
                },
            }
        )
    if not results:
        raise PlanError("the method has no fault that Chaos Mesh can inject")
    return results


def _spec(func: str, arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if func == "kill_process":
        return "PodChaos", {"action": "pod-kill", "gracePeriod": 0}
    if func == "pause_process":
        return "PodChaos", {"action": "pod-failure"}
    if func == "cpu_pressure":
        workers = int(arguments.get("cores", 1))
        return "StressChaos", {"stressors": {"cpu": {"workers": workers, "load": 100}}}
    if func == "memory_pressure":
        size = f"{int(arguments.get('mib', 256))}MB"
        return "StressChaos", {"stressors": {"memory": {"workers": 1, "size": size}}}
    if func == "fill_disk":
        path = str(arguments.get("path", "/"))
        fault = {"action": "fault", "errno": 28, "volumePath": path, "percent": 100}
        return "IOChaos", {**fault, "methods": ["WRITE"]}
    if func == "jump_clock":
        return "TimeChaos", {"timeOffset": f"{float(arguments.get('seconds', 0)):g}s"}
    if func == "cut_link":
        return "NetworkChaos", {"action": "partition", "direction": "both"}
    if func == "add_fault":
        return _network(str(arguments.get("type")), arguments.get("attributes") or {})
    raise PlanError(f"{func}: Chaos Mesh has no counterpart")


def _network(kind: str, at: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    def delay() -> dict[str, Any]:
        result = {"latency": f"{float(at.get('latency', 0)):g}ms"}
        if at.get("jitter"):
            result["jitter"] = f"{float(at['jitter']):g}ms"
        return {"action": "delay", "delay": result, "direction": "to"}

    def corrupt() -> dict[str, Any]:
        percent = min(100.0, 100.0 * 1400.0 * float(at.get("probability", 0.001)))
        return {"action": "corrupt", "corrupt": {"corrupt": f"{percent:g}"}, "direction": "to"}

    def bandwidth() -> dict[str, Any]:
        # A buffer of a tenth of a second, and a queue of a second.
        rate = max(1, int(float(at.get("rate", 0)) * 1e3))
        limits = {"rate": f"{rate}bps", "limit": rate, "buffer": max(1500, rate // 10)}
        return {"action": "bandwidth", "bandwidth": limits, "direction": "to"}

    networks: dict[str, Callable[[], dict[str, Any]]] = {
        "latency": delay,
        "bandwidth": bandwidth,
        "corrupt": corrupt,
        "timeout": lambda: {"action": "loss", "loss": {"loss": "100"}, "direction": "both"},
        "down": lambda: {"action": "partition", "direction": "both"},
    }
    if kind in networks:
        return "NetworkChaos", networks[kind]()
    if kind in ("http_error", "reset_peer"):
        spec: dict[str, Any] = {
            "target": "Response",
            "port": int(at.get("port", 8080)),
            "path": "*",
        }
        if kind == "reset_peer":
            return "HTTPChaos", {**spec, "abort": True}
        return "HTTPChaos", {**spec, "replace": {"code": int(at.get("status", 503))}}
    raise PlanError(f"add_fault {kind}: Chaos Mesh has no counterpart")
