"""Adds the sidecar to a pod, from a file that the chart renders. Pure functions.

A pod requests it by annotations:

* ``understudy/inject: "true"``;
* ``understudy/config``: the ConfigMap that holds its ``understudy.yaml``;
* ``understudy/container``: the model server's container, where it cannot be told (see `_model`);
* ``understudy/token-secret``: a Secret with the token of the control API, under ``token``;
* ``understudy/port``: the name of a port of the model server that the sidecar takes over, so that
  Services with this target port route through the sidecar (Kubernetes 1.33 and later).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from understudy.common.yaml_text import YamlError, read_text, read_yaml
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
DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
"""The container that kubectl takes by default; meshes set it to the application's."""
PROXIES = frozenset(
    {
        *("istio-proxy", "linkerd-proxy", "envoy", "envoy-sidecar", "consul-dataplane"),
        *("kuma-sidecar", "osm-envoy", "queue-proxy", "daprd", "vault-agent", "oauth2-proxy"),
        *("cloud-sql-proxy", "cloudsql-proxy", "kube-rbac-proxy", "fluent-bit", "filebeat"),
    }
)
"""Containers that stand beside an application, by the names under which they are added to pods."""


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
    model_port: int | None = None
    """The port on which the chart expects the model server."""

    @property
    def ports(self) -> set[int]:
        """The ports that it listens on, which no other container of the pod may use."""
        return {port["containerPort"] for one in self.containers for port in one.get("ports", [])}


def load_sidecar(path: Path) -> Sidecar:
    """Read the file that the chart renders. Raises ConfigError."""
    try:
        result = read_yaml(read_text(path))
    except YamlError as error:
        raise ConfigError(str(path), [("", str(error))]) from error
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
        result.get("modelPort"),
    )


class NotInjected(NamedTuple):
    """Why a pod does not get the sidecar."""

    text: str
    present: bool = False
    """Whether it has the sidecar already."""


class Injected(NamedTuple):
    """A pod with the sidecar."""

    pod: dict[str, Any]
    model: str
    """The name of the model server's container."""
    warnings: tuple[str, ...]


def not_injected(pod: Mapping[str, Any]) -> NotInjected | None:
    """Why a pod, or pod template, does not get the sidecar; None if it requests it."""
    annotations = (pod.get("metadata") or {}).get("annotations") or {}
    if INJECT not in annotations:
        return NotInjected(f"no annotation {INJECT}")
    value = annotations[INJECT]
    if value != "true":
        hint = "" if value == "false" else '; write "true", in quotes'
        return NotInjected(f"{INJECT} is {json.dumps(value)}{hint}")
    containers = pod.get("spec", {}).get("initContainers") or []
    if any(one.get("name") == NAME for one in containers):
        return NotInjected("has the sidecar already", present=True)
    return None


def inject(pod: Mapping[str, Any], sidecar: Sidecar) -> Injected:
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
    everyone = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    if not all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in everyone):
        raise InjectionRefused("every container needs a name")
    model = _model(spec, annotations, sidecar.model_port)
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
    warnings: tuple[str, ...] = ()
    if kept := (model.get("lifecycle") or {}).get("preStop"):
        warnings = (
            f"the container {model['name']!r} keeps its own preStop {json.dumps(kept)}; the model"
            " server has to serve for as long as the sidecar drains, which is what"
            f" {json.dumps(sidecar.lifecycle.get('preStop'))} does",
        )
    else:
        model["lifecycle"] = {**(model.get("lifecycle") or {}), **copy.deepcopy(sidecar.lifecycle)}
    grace = spec.get("terminationGracePeriodSeconds")
    spec["terminationGracePeriodSeconds"] = max(
        DEFAULT_GRACE if grace is None else grace, sidecar.grace
    )
    metadata["annotations"] = {**annotations, STATUS: "injected"}
    metadata["labels"] = {**(metadata.get("labels") or {}), LABEL: "injected"}
    return Injected(new, model["name"], warnings)


def _model(
    spec: dict[str, Any], annotations: Mapping[str, str], port: int | None
) -> dict[str, Any]:
    """The model server's container: whatever stands first in the pod, never a mesh's proxy.

    It is the container that is named by ``understudy/container``; or that has the port named by
    ``understudy/port``, or the model server's port of the chart; or that kubectl takes by default;
    or else the first one that is not a known proxy.
    """
    containers: list[dict[str, Any]] = spec.get("containers") or []
    if (name := annotations.get(CONTAINER)) is not None:
        for container in containers:
            if container["name"] == name:
                return container
        raise InjectionRefused(f"{CONTAINER}: the pod has no container {name!r}")
    candidates = [one for one in containers if one["name"] not in PROXIES]
    wanted = {"name": annotations.get(PORT), "containerPort": port}
    for key, value in wanted.items():
        for container in candidates:
            ports = container.get("ports") or []
            if value is not None and any(one.get(key) == value for one in ports):
                return container
    for container in candidates:
        if container["name"] == annotations.get(DEFAULT_CONTAINER):
            return container
    if not candidates:
        names = ", ".join(one["name"] for one in containers) or "none"
        raise InjectionRefused(
            f"none of the pod's containers ({names}) looks like a model server: name it in the"
            f" annotation {CONTAINER}"
        )
    return candidates[0]


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
