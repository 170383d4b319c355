"""Answers an ``AdmissionReview`` of ``admission.k8s.io/v1``."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from understudy.monitor.inject.pod import InjectionRefused, Sidecar, inject, not_injected


class BadReview(ValueError):
    """The body is not a review of a pod."""


def patch_between(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[dict[str, Any]]:
    """JSON Patch (RFC 6902) from ``old`` to ``new``, by the fields of metadata and spec."""
    return [
        {"op": "replace" if key in old[part] else "add", "path": f"/{part}/{key}", "value": value}
        for part in ("metadata", "spec")
        for key, value in new[part].items()
        if old[part].get(key) != value
    ]


def answer(review: Any, sidecar: Sidecar) -> dict[str, Any]:
    """The response to a review; rejects a pod that the sidecar cannot be added to, with the reason.

    Raises BadReview when ``body`` is not a review of a pod.
    """
    try:
        request = review["request"]
        uid, pod = request["uid"], request["object"]
        if review["kind"] != "AdmissionReview" or pod["kind"] != "Pod":
            raise BadReview("not a review of a pod")
        response: dict[str, Any] = {"uid": uid, "allowed": True}
        if not_injected(pod) is None:
            try:
                result = inject(pod, sidecar)
                patch = patch_between(pod, result.pod)
                encoded = base64.b64encode(json.dumps(patch).encode()).decode()
                response |= {"patchType": "JSONPatch", "patch": encoded}
                if result.warnings:
                    response["warnings"] = [f"understudy: {one}" for one in result.warnings]
            except InjectionRefused as error:
                status = {"code": 422, "reason": "Invalid", "message": f"understudy: {error}"}
                response |= {"allowed": False, "status": status}
    except (KeyError, TypeError, AttributeError) as error:
        raise BadReview(f"not a review of a pod: {type(error).__name__} {error}") from error
    return {"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response}
