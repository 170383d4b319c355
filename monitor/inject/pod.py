"""Adds the sidecar to a pod, from a file that the chart renders. Pure functions.

A pod requests it by annotations:

* ``understudy/inject: "true"``;
* ``understudy/config``: the ConfigMap that holds its ``understudy.yaml``;
* ``understudy/container``: the model server's container, where it is not the first;
* ``understudy/token-secret``: a Secret with the token of the control API, under ``token``;
* ``understudy/port``: the name of a port of the model server that the sidecar takes over, so that
  Services with this target port route through the sidecar (Kubernetes 1.33 and later).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from understudy.monitor.errors import ConfigError, UnderstudyError

PREFIX = "understudy/"
INJECT, CONFIG, CONTAINER = PREFIX + "inject", PREFIX + "config", PREFIX + "container"
SECRET, PORT = PREFIX + "token-secret", PREFIX + "port"
STATUS = PREFIX + "status"
LABEL = PREFIX + "sidecar"
TOKEN = "UNDERSTUDY_TOKEN"  # noqa: S105  # the name of a variable
NAME, VOLUME = "understudy", "understudy-config"
DEFAULT_GRACE = 30
"""Kubernetes' default of a pod's grace period, in seconds."""


class InjectionRefused(UnderstudyError):
    """The sidecar cannot be added to the pod; the message says what to change."""

    exit_code = 2


@dataclass(frozen=True)
class Sidecar:
    """The parts that are added to pods."""

    containers: list[dict[str, Any]]
    volumes: list[dict[str, Any]]
    lifecycle: dict[str, Any]
    grace: int
    pull_secrets: list[dict[str, str]] = field(default_factory=list)
    """Names of the pull secrets of its image, in the pod's namespace."""

    @property
    def ports(self) -> set[int]:
        """The ports that it listens on, which no other container of the pod may use."""
        return {port["containerPort"] for one in self.containers for port in one.get("ports", [])}


def load_sidecar(path: Path) -> Sidecar:
    """Read the file that the chart renders. Raises ConfigError."""
    try:
        result = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(str(path), [("", f"cannot be read: {error}")]) from error
    wanted = {
        "initContainers": list,
        "volumes": list,
        "lifecycle": dict,
        "terminationGracePeriodSeconds": int,
    }
    result = result if isinstance(result, dict) else {}
    problems = [
        (key, f"is needed, as a {kind.__name__}; the chart understudy writes this file")
        for key, kind in wanted.items()
        if not isinstance(result.get(key), kind)
    ]
    if not problems and [c.get("name") for c in result["initContainers"]].count(NAME) != 1:
        problems = [("initContainers", f"must contain one container named {NAME!r}")]
    if problems:
        raise ConfigError(str(path), problems)
    return Sidecar(
        result["initContainers"],
        result["volumes"],
        result["lifecycle"],
        result["terminationGracePeriodSeconds"],
        result.get("imagePullSecrets") or [],
    )


def asks(pod: Mapping[str, Any]) -> bool:
    """Whether a pod, or pod template, requests the sidecar and does not have it."""
    annotations = pod.get("metadata", {}).get("annotations") or {}
    containers = pod.get("spec", {}).get("initContainers") or []
    return annotations.get(INJECT) == "true" and all(one.get("name") != NAME for one in containers)


def inject(pod: Mapping[str, Any], sidecar: Sidecar) -> dict[str, Any]:
    """A copy of ``pod`` with the sidecar. Raises InjectionRefused."""
    new: dict[str, Any] = copy.deepcopy(dict(pod))
    metadata, spec = new["metadata"], new["spec"]
    annotations: dict[str, str] = metadata["annotations"]
    config = annotations.get(CONFIG)
    if not config:
        raise InjectionRefused(
            f"the annotation {CONFIG} is required: the ConfigMap that holds understudy.yaml"
        )
    if spec.get("shareProcessNamespace"):
        raise InjectionRefused(
            "the pod has shareProcessNamespace, and the sidecar is told to stop as process 1 of its"
            " own container: its requests would end with the model server's"
        )
    model = _model(spec, annotations.get(CONTAINER))
    _free(spec, sidecar)
    containers = copy.deepcopy(sidecar.containers)
    for container in containers:
        _token(container, annotations.get(SECRET))
        if PORT in annotations and container["name"] == NAME:
            _take_over(model, container, annotations[PORT])
    # After existing init containers: they need no sidecar, and may prepare the model.
    spec["initContainers"] = [*(spec.get("initContainers") or []), *containers]
    spec["volumes"] = [*(spec.get("volumes") or []), *_volumes(sidecar, config)]
    secrets = spec.get("imagePullSecrets") or []
    if more := [one for one in sidecar.pull_secrets if one not in secrets]:
        spec["imagePullSecrets"] = [*secrets, *more]
    if not (model.get("lifecycle") or {}).get("preStop"):
        model["lifecycle"] = {**(model.get("lifecycle") or {}), **copy.deepcopy(sidecar.lifecycle)}
    grace = spec.get("terminationGracePeriodSeconds")
    spec["terminationGracePeriodSeconds"] = max(
        DEFAULT_GRACE if grace is None else grace, sidecar.grace
    )
    metadata["annotations"] = {**annotations, STATUS: "injected"}
    metadata["labels"] = {**(metadata.get("labels") or {}), LABEL: "injected"}
    return new


def _model(spec: dict[str, Any], name: str | None) -> dict[str, Any]:
    containers: list[dict[str, Any]] = spec["containers"]
    if name is None:
        return containers[0]
    for container in containers:
        if container["name"] == name:
            return container
    raise InjectionRefused(f"{CONTAINER}: the pod has no container {name!r}")


def _free(spec: dict[str, Any], sidecar: Sidecar) -> None:
    """Containers of a pod share its ports."""
    everyone = [*(spec.get("initContainers") or []), *spec["containers"]]
    for container in everyone:
        for port in container.get("ports") or []:
            if port["containerPort"] in sidecar.ports:
                raise InjectionRefused(
                    f"port {port['containerPort']} of the container {container['name']!r} is one of"
                    " the sidecar's: let the model server listen on another one, or set `ports` of"
                    " the chart understudy"
                )
    taken = {volume["name"] for volume in spec.get("volumes") or []}
    for volume in sidecar.volumes:
        if volume["name"] in taken:
            raise InjectionRefused(f"the pod already has a volume {volume['name']!r}: rename it")


def _token(container: dict[str, Any], secret: str | None) -> None:
    """Use the Secret of the pod's namespace; without one, remove the token from the environment."""
    env = [one for one in container.get("env", []) if one["name"] != TOKEN]
    if secret:
        key = {"name": secret, "key": "token"}
        env.insert(0, {"name": TOKEN, "valueFrom": {"secretKeyRef": key}})
    container["env"] = env


def _volumes(sidecar: Sidecar, config: str) -> list[dict[str, Any]]:
    volumes = copy.deepcopy(sidecar.volumes)
    for volume in volumes:
        if volume["name"] == VOLUME:
            volume["configMap"] = {"name": config}
    return volumes


def _take_over(model: dict[str, Any], container: dict[str, Any], name: str) -> None:
    for port in model.get("ports") or []:
        if port.get("name") == name:
            del port["name"]
            container["ports"][0]["name"] = name
            return
    raise InjectionRefused(f"{PORT}: the container {model['name']!r} has no port named {name!r}")
