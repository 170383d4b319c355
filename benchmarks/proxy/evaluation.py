"""What the evaluation plane costs per record: unpacking, JSON, codecs, statistics.

One process, no sockets: encoded batches of 256 records with 20 features and one prediction, in the
wire formats that matter, each with as many mirrored answers as requests. Prints processor time per
record.
"""

from __future__ import annotations

import json
import resource
import time
from typing import Any

import numpy as np

from benchmarks.harness import Claim, Result, environment, median
from understudy.monitor.evidence.settings import Settings
from understudy.monitor.pipeline.pipeline import Pipeline
from understudy.monitor.records import record
from understudy.monitor.records.encode import encode as encode_record
from understudy.monitor.records.handoff import Names

FEATURES = 20
BATCH = 256
TARGET_US = 15.0


def settings() -> Settings:
    return Settings.from_json(
        {
            "models": [
                {"name": "m", "version": "1", "features": [f"f{i}" for i in range(FEATURES)]}
            ],
            "challengers": [{"name": "candidate"}],
        }
    )


def bodies(protocol: str, row: list[float]) -> tuple[str, bytes, bytes]:
    """Target, request and response of one row."""
    if protocol == "open-inference-v2":
        tensor = {"name": "x", "shape": [1, FEATURES], "datatype": "FP64", "data": row}
        answer = {"name": "p", "shape": [1], "datatype": "FP64", "data": [row[0]]}
        return (
            "/v2/models/m/infer",
            json.dumps({"inputs": [tensor]}).encode(),
            json.dumps({"model_name": "m", "outputs": [answer]}).encode(),
        )
    if protocol == "kserve-v1":
        return (
            "/v1/models/m:predict",
            json.dumps({"instances": [row]}).encode(),
            json.dumps({"predictions": [row[0]]}).encode(),
        )
    records = [{f"f{i}": value for i, value in enumerate(row)}]
    return (
        "/invocations",
        json.dumps({"dataframe_records": records}).encode(),
        json.dumps({"predictions": [row[0]]}).encode(),
    )


def batches(protocol: str, mirrored: bool, count: int) -> list[bytes]:
    """Encoded batches; of each two records the second is a copy's answer if ``mirrored``."""
    rng = np.random.default_rng(1)
    made = []
    for _ in range(count):
        parts: list[bytes] = []
        for number in range(BATCH):
            target, request, response = bodies(protocol, rng.random(FEATURES).round(6).tolist())
            copy = mirrored and number % 2 == 1
            _, encoded = encode_record(
                0,
                int(copy),
                200,
                record.ROLE_MIRROR if copy else record.ROLE_PRIMARY,
                record.OK,
                1.7e9,
                int(rng.exponential(0.01) * 1e9),
                1_000_000,
                0,
                len(request),
                len(response),
                b"0123456789abcdef",
                b"0123456789abcdef0123456789abcdef",
                b"",
                target.encode(),
                b"" if copy else b"content-type: application/json",
                b"content-type: application/json",
                None if copy else request,
                response,
            )
            parts += encoded
        made.append(b"".join(parts))
    return made


def cost(protocol: str, mirrored: bool, repeats: int) -> list[float]:
    """Processor time per record in microseconds, once per repeat."""
    pipeline = Pipeline(settings())
    names = Names(1, (("m", "1", protocol),), ("champion", "candidate"))
    made = batches(protocol, mirrored, 10)
    figures = []
    for number in range(repeats + 1):
        begun = time.process_time()
        for data in made:
            pipeline.take(names, BATCH, data)
        pipeline.flush()
        if number:  # the first round warms up
            figures.append((time.process_time() - begun) / (len(made) * BATCH) * 1e6)
    assert not pipeline.undecodable, pipeline.undecodable
    return figures


def run(quick: bool) -> Result:
    """Measure every format; see the module's text."""
    result = Result(
        "proxy-evaluation",
        environment(
            numpy=np.__version__, batch=BATCH, features=FEATURES, form="quick" if quick else "full"
        ),
    )
    rows: list[list[Any]] = []
    for protocol in ("open-inference-v2", "kserve-v1", "mlflow"):
        for mirrored in (False, True):
            figures = cost(protocol, mirrored, 3 if quick else 15)
            name = f"{protocol}, {'half of it copies' if mirrored else 'requests and answers'}"
            result.measurements[name] = figures
            rows.append([name, median(figures), min(figures), max(figures)])
    result.measurements["peak_resident_mib"] = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    )
    result.tables.append(
        ("Processor time per record, µs", ["what", "median", "least", "most"], rows)
    )
    worst = max(float(row[1]) for row in rows)
    claim = "CPU µs per record of 20 features, decoded and summarised, worst format"
    result.claims.append(Claim(claim, worst, TARGET_US, "<="))
    return result
