"""Checkov over what the chart renders. Every finding is either none, or one of ours, with a reason."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.support.chart import CASES, ROOT, render
from tests.support.patience import patient
from tools.parts import kubernetes

ACCEPTED = {
    "CKV_K8S_11": "no limit of processor time: throttling would be added to the slowest requests",
    "CKV_K8S_43": "digests are the user's to set: image.digest, model.image.digest",
    "CKV_K8S_15": "tags are of versions, and do not move: image.pullPolicy",
    "CKV_K8S_35": "the token is read from the environment, which only its own processes can see",
    "CKV_K8S_8": "no liveness of the sidecar by default: its supervisor restarts what dies",
    "CKV_K8S_9": "the pod of helm test runs once and serves no traffic",
}


def findings(folder: Path) -> list[tuple[str, str, str]]:
    """Check, its name and the resource, for everything that fails."""
    checkov = kubernetes.need("checkov") / "bin" / "checkov"
    done = subprocess.run(
        [
            # Not by its first line, which names the folder that it was installed in.
            str(checkov.with_name("python")), str(checkov),
            "--directory", str(folder), "--framework", "kubernetes", "--quiet", "--output", "json",
        ],
        capture_output=True, text=True, timeout=patient(100),
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["summary"]["parsing_errors"] == 0
    assert found["summary"]["passed"] > 50
    return [
        (one["check_id"], one["check_name"], one["resource"])
        for one in found["results"]["failed_checks"]
    ]


def test_nothing_is_found_but_what_is_meant(tmp_path: Path) -> None:
    for number, case in enumerate(("everything", "a model server with everything", "locust runs")):
        (tmp_path / f"{number}.yaml").write_text(yaml.safe_dump_all(render(case)))
    more = [one for one in findings(tmp_path) if one[0] not in ACCEPTED]
    assert not more


def test_nothing_is_found_in_the_examples(tmp_path: Path) -> None:
    for name in ("deployment", "injected", "argo-rollouts"):
        source = ROOT / "examples" / "kubernetes" / f"{name}.yaml"
        objects = list(yaml.safe_load_all(source.read_text()))
        for one in objects:
            one["metadata"]["namespace"] = "serving"  # kubectl's is the user's
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump_all(objects))
    # Whom its pods may talk to is for the namespace to say; the chart brings a policy.
    accepted = {*ACCEPTED, "CKV2_K8S_6"}
    assert not [one for one in findings(tmp_path) if one[0] not in accepted]


def test_a_loose_manifest_is_found(tmp_path: Path) -> None:
    """Or the test above would show nothing."""
    loose = [one for one in render(CASES["least"]) if one["kind"] == "Deployment"]
    del loose[0]["spec"]["template"]["spec"]["initContainers"][0]["securityContext"]
    loose[0]["spec"]["template"]["spec"]["hostNetwork"] = True
    rest = [one for one in render("everything") if one["kind"] != "Deployment"]
    (tmp_path / "loose.yaml").write_text(yaml.safe_dump_all([*loose, *rest]))
    assert {"CKV_K8S_20", "CKV_K8S_19"} <= {check for check, _, _ in findings(tmp_path)}
