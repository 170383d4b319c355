"""``python -m understudy.demo.model_server PORT MODEL.json``: serves one of the demo's models.

It speaks the Open Inference Protocol (V2) and KServe's V1. An answer takes at least
:data:`WORK_SECONDS`, as it would for a model that is larger than a logistic regression.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from understudy.demo.flights import FEATURES, MODEL, PREDICTION, TEXTS, LateModel
from understudy.demo.http_server import Answer, serve

WORK_SECONDS = 0.004
VERSION = "1"


def _rows_of_v2(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    columns = {tensor["name"]: tensor["data"] for tensor in document["inputs"]}
    count = len(next(iter(columns.values())))
    return [{name: data[index] for name, data in columns.items()} for index in range(count)]


def _v2(document: Mapping[str, Any], scores: list[float]) -> dict[str, Any]:
    output = {"name": PREDICTION, "shape": [len(scores)], "datatype": "FP64", "data": scores}
    answer = {"model_name": MODEL, "model_version": VERSION, "outputs": [output]}
    if "id" in document:
        answer["id"] = document["id"]
    return answer


def _metadata() -> dict[str, Any]:
    return {
        "name": MODEL,
        "versions": [VERSION],
        "platform": "understudy-demo",
        "inputs": [
            {"name": name, "datatype": "BYTES" if name in TEXTS else "FP64", "shape": [-1]}
            for name in FEATURES
        ],
        "outputs": [{"name": PREDICTION, "datatype": "FP64", "shape": [-1]}],
    }


class ModelServer:
    """Answers requests with the predictions of ``model``."""

    def __init__(self, model: LateModel) -> None:
        self._model = model
        ready = {"name": MODEL, "ready": True}
        self._pages: dict[str, Any] = {
            "/v2": {"name": "understudy-demo", "version": VERSION, "extensions": []},
            "/v2/health/live": {"live": True},
            "/v2/health/ready": {"ready": True},
            f"/v2/models/{MODEL}": _metadata(),
            f"/v2/models/{MODEL}/ready": ready,
            "/v1/models": {"models": [MODEL]},
            f"/v1/models/{MODEL}": ready,
        }

    async def __call__(self, method: str, path: str, body: bytes) -> Answer:
        """Answer one request."""
        if method == "GET" and path in self._pages:
            return Answer(200, self._pages[path])
        of_v2 = path == f"/v2/models/{MODEL}/infer"
        if method != "POST" or not (of_v2 or path == f"/v1/models/{MODEL}:predict"):
            return Answer(404, {"error": f"not found: {method} {path}"})
        try:
            document = json.loads(body)
            rows = _rows_of_v2(document) if of_v2 else document["instances"]
        except (ValueError, LookupError, TypeError) as error:
            return Answer(400, {"error": f"the request cannot be read: {error!r}"})
        await asyncio.sleep(WORK_SECONDS)
        try:
            scores = [self._model.predict(row) for row in rows]
        except (ValueError, LookupError, TypeError) as error:
            return Answer(500, {"error": str(error)})
        if of_v2:
            return Answer(200, _v2(document, scores))
        return Answer(200, {"predictions": [{PREDICTION: score} for score in scores]})


if __name__ == "__main__":
    learned = LateModel(json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
    serve(int(sys.argv[1]), ModelServer(learned), {})
