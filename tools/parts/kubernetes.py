"""Parts of Kubernetes: Helm, the API server, and the schemas of Kubernetes and of custom resources.

Programs are built with Go, by module and version; schemas come from Go modules and from wheels of
SDKs. All is kept below ``~/.cache/understudy`` (``$XDG_CACHE_HOME``), so that a fresh clone has it
already. ``python -m tools.parts.kubernetes`` fetches the schemas of the newest Kubernetes and of custom
resources (``make parts`` does); ``python -m tools.parts.kubernetes all`` makes the rest: Helm, the other
versions, checkov, and the API server, which takes minutes of two processors (``make parts ALL=1``,
``make test-all``). Tests call :func:`need` and never build anything.
"""

from __future__ import annotations

import ast
import gzip
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.parts import golang
from tools.parts.golang import ANY_MOD, Unavailable, go, keep, module

CACHE = golang.CACHE / "kubernetes"
HELM = "v3.22.0"
APISERVER = "v1.37.2"
PROGRAMS = (
    "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl",
)  # fmt: skip
"""Of Kubernetes itself: tests of the chart need the first, a cluster (``make cluster``) all."""
COREDNS = "v1.12.4"
CHECKOV = "3.3.30"
KUBERNETES = (
    "v1.29.15", "v1.30.14", "v1.31.14", "v1.32.13", "v1.33.9", "v1.34.4", "v1.35.4", "v1.36.3",
    "v1.37.2",
)  # fmt: skip
"""The oldest that the chart takes to the newest, one of each minor version."""
CRDS = {
    "prometheus-operator": (
        "github.com/prometheus-operator/prometheus-operator@v0.92.1",
        "example/prometheus-operator-crd/*.yaml",
    ),
    "argo-rollouts": ("github.com/argoproj/argo-rollouts@v1.8.3", "manifests/crds/*-crd.yaml"),
    "flagger": ("github.com/fluxcd/flagger@v1.36.1", "artifacts/flagger/crd.yaml"),
    "cert-manager": ("github.com/cert-manager/cert-manager@v1.21.2", "deploy/crds/*.yaml"),
}
KINDS = (
    "PodMonitor", "PrometheusRule", "AnalysisTemplate", "Rollout", "Canary", "MetricTemplate",
    "Certificate", "Issuer",
)  # fmt: skip
"""What our manifests have of them."""


SDKS = {
    "kserve": ("kserve==0.21.0", "kserve/models/", "V1beta1InferenceService"),
    "seldon": ("seldon-deploy-sdk==2.4.0", "seldon_deploy_sdk/models/", "SeldonDeployment"),
}
"""Of projects whose own definitions no registry has: wheels with a class for each of their types."""


DOWNLOADED = (*CRDS, KUBERNETES[-1], *SDKS)
"""What is there without ``all``: nothing that is built, and no more than one large module."""


def place(part: str) -> Path:
    """Where a part is, or will be."""
    if part in SDKS:
        return CACHE / f"{part}-{SDKS[part][0].rpartition('=')[2]}.json.gz"
    versions = {"helm": HELM, "checkov": CHECKOV, "coredns": COREDNS}
    version = versions.get(part, APISERVER if part in PROGRAMS else None)
    if version is not None:
        return CACHE / f"{part}-{version}"
    if part in CRDS:
        return CACHE / f"{part}-{CRDS[part][0].rpartition('@')[2]}.json.gz"
    return CACHE / f"kubernetes-{part}.json.gz"


def need(part: str) -> Path:
    """The part, or a skip that says how to get it."""
    path = place(part)
    if not path.exists():
        target = "parts" if part in DOWNLOADED else "test-all"
        pytest.skip(f"NOT TESTED: {part} is not here; `make {target}` makes it where Go works")
    return path


def load(part: str) -> Any:
    """What a part with schemas holds, or a skip."""
    with gzip.open(need(part), "rt", encoding="utf-8") as file:
        return json.load(file)


_AT_ONCE = 4
"""Parts that are made at a time: most only wait for the network."""


def _build_helm() -> None:
    # What Helm's own build sets: its version, and the Kubernetes that it takes for granted.
    minor = APISERVER.split(".")[1]
    flags = [f"-X helm.sh/helm/v3/internal/version.version={HELM}"]
    for package in ("pkg/chartutil", "pkg/lint/rules"):
        flags += [
            f"-X helm.sh/helm/v3/{package}.k8sVersionMajor=1",
            f"-X helm.sh/helm/v3/{package}.k8sVersionMinor={minor}",
        ]
    with tempfile.TemporaryDirectory() as folder:
        go(
            "install", "-ldflags", " ".join(("-s -w", *flags)), f"helm.sh/helm/v3/cmd/helm@{HELM}",
            timeout=1800, environment={"GOBIN": folder},
        )  # fmt: skip
        keep(Path(folder) / "helm", place("helm"))


def _build(program: str) -> None:
    """A program of Kubernetes, for instance ``kube-apiserver``.

    Kubernetes' own go.mod replaces its libraries by folders that are not in the module; they are
    released as separate modules, v1.x.y as v0.x.y.
    """
    source = (module(f"k8s.io/kubernetes@{APISERVER}") / "go.mod").read_text()
    libraries = re.findall(r"^\s*(k8s\.io/\S+) => \./staging/", source, re.MULTILINE)
    version = "v0" + APISERVER.removeprefix("v1")
    lines = [
        "module programs",
        *re.findall(r"^go .*$", source, re.MULTILINE),
        f"require k8s.io/kubernetes {APISERVER}",
        *(f"replace {name} => {name} {version}" for name in libraries),
    ]
    _, minor, _ = APISERVER.split(".")
    said = {"gitVersion": APISERVER, "gitMajor": "1", "gitMinor": minor}
    flags = " ".join(f"-X k8s.io/component-base/version.{k}={v}" for k, v in said.items())
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "go.mod").write_text("\n".join(lines) + "\n")
        made = Path(folder) / program
        go(
            "build", "-ldflags", f"-s -w {flags}", "-o", str(made),
            f"k8s.io/kubernetes/cmd/{program}",
            cwd=Path(folder), timeout=7200, environment=ANY_MOD,
        )  # fmt: skip
        keep(made, place(program))


def _build_coredns() -> None:
    with tempfile.TemporaryDirectory() as folder:
        go(
            "install", "-ldflags", "-s -w", f"github.com/coredns/coredns@{COREDNS}",
            timeout=3600, environment={"GOBIN": folder},
        )  # fmt: skip
        keep(Path(folder) / "coredns", place("coredns"))


def _write(part: str, data: Any) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    fresh = place(part).with_suffix(".fresh")
    with gzip.open(fresh, "wt", encoding="utf-8") as file:
        json.dump(data, file)
    fresh.replace(place(part))


def _install_checkov() -> None:
    """Install it into a separate environment, because it pins many dependencies."""
    fresh = place("checkov").with_suffix(".fresh")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.parent.mkdir(parents=True, exist_ok=True)
    for command in (
        [sys.executable, "-m", "venv", str(fresh)],
        [str(fresh / "bin" / "pip"), "install", "--quiet", f"checkov=={CHECKOV}"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Unavailable((done.stderr.strip() or "pip failed").splitlines()[-1])
    fresh.rename(place("checkov"))


def _fetch_kubernetes(version: str) -> None:
    """The OpenAPI definitions of a version. The module is large, and not kept."""
    with tempfile.TemporaryDirectory() as folder:
        source = module(f"k8s.io/kubernetes@{version}", Path(folder))
        swagger = json.loads((source / "api" / "openapi-spec" / "swagger.json").read_text())
        _write(version, swagger["definitions"])
        go("clean", "-modcache", timeout=120, environment={"GOMODCACHE": folder})


class _Loader(yaml.CSafeLoader):
    """Takes a lone ``=`` for a text, as every YAML since 1.2 does."""


_Loader.yaml_implicit_resolvers = {
    key: value for key, value in yaml.CSafeLoader.yaml_implicit_resolvers.items() if key != "="
}


def _crds(folder: Path, pattern: str) -> Iterator[dict[str, Any]]:
    for file in sorted(folder.glob(pattern)):
        for result in yaml.load_all(file.read_text(), _Loader):
            if result and result["kind"] == "CustomResourceDefinition":
                yield result


def _fetch_crds(part: str) -> None:
    name, pattern = CRDS[part]
    with tempfile.TemporaryDirectory() as folder:
        result = list(_crds(module(name, Path(folder)), pattern))
        if not result:
            raise Unavailable("the module has no such files")
        _write(part, [one for one in result if one["spec"]["names"]["kind"] in KINDS])
        go("clean", "-modcache", timeout=120, environment={"GOMODCACHE": folder})


def _literals(source: str) -> dict[str, dict[str, str]]:
    """The class attributes of generated code that are dictionaries of texts, by name."""
    result = {}
    for one in ast.walk(ast.parse(source)):
        if isinstance(one, ast.Assign) and isinstance(one.value, ast.Dict):
            target = one.targets[0]
            if isinstance(target, ast.Name):
                result[target.id] = ast.literal_eval(one.value)
    return result


def _fetch_sdk(part: str) -> None:
    """For each type of an SDK, the names of its fields as they stand in YAML, and their types."""
    requirement, prefix, _ = SDKS[part]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", requirement]
        done = subprocess.run([*command, "--dest", folder], capture_output=True, text=True)
        wheels = list(Path(folder).glob("*.whl"))
        if not wheels:
            raise Unavailable((done.stderr.strip() or "pip failed").splitlines()[-1])
        types: dict[str, dict[str, str]] = {}
        with zipfile.ZipFile(wheels[0]) as wheel:
            for name in wheel.namelist():
                if name.startswith(prefix) and name.endswith(".py"):
                    source = wheel.read(name).decode()
                    match = re.search(r"^class (\w+)\(", source, re.MULTILINE)
                    result = _literals(source)
                    kinds = result.get("openapi_types", result.get("swagger_types", {}))
                    if match is not None and "attribute_map" in result:
                        names = result["attribute_map"]
                        types[match[1]] = {names[key]: kinds[key] for key in kinds}
    _write(part, types)


def make(part: str) -> None:
    """Make a part. Raises Unavailable."""
    if part == "helm":
        _build_helm()
    elif part in PROGRAMS:
        _build(part)
    elif part == "coredns":
        _build_coredns()
    elif part == "checkov":
        _install_checkov()
    elif part in CRDS:
        _fetch_crds(part)
    elif part in SDKS:
        _fetch_sdk(part)
    else:
        _fetch_kubernetes(part)


def main(wanted: list[str]) -> int:
    """Make what is missing; what cannot be had is a notice, not an error."""
    parts = wanted or [*DOWNLOADED]
    if wanted == ["cluster"]:
        parts = [*PROGRAMS, "coredns"]
    if wanted == ["all"]:
        parts = ["helm", "kube-apiserver", "checkov", *CRDS, *KUBERNETES, *SDKS]
    missing = [part for part in parts if not place(part).exists()]
    if set(missing) - {*SDKS, "checkov"} and shutil.which("go") is None:
        print(f"NOTICE: no Go here; tests that need {', '.join(missing)} are skipped")
        return 0
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(_make, missing))
    return 0


def _make(part: str) -> None:
    slow = {
        "helm": " (a minute or three)",
        "kube-apiserver": " (about ten minutes)",
        "checkov": " (a minute)",
    }
    print(f"making {part}{slow.get(part, '')} …\n", end="", flush=True)
    try:
        make(part)
    except Unavailable as reason:
        print(
            f"NOTICE: {part} cannot be had here ({reason}); its tests are skipped\n",
            end="",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
