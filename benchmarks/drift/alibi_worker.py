"""Runs one online detector of alibi-detect; started by ``rivals.py`` with its own interpreter.

Reads a job from standard input and arrays from the npz file it is given; prints one JSON line.
Imports numpy and alibi-detect, nothing of this project.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np


def detector(job: dict[str, Any], reference: Any) -> Any:
    if job["method"] == "cvm":
        from alibi_detect.cd import CVMDriftOnline

        return CVMDriftOnline(
            reference,
            ert=job["ert"],
            window_sizes=job["windows"],
            n_bootstraps=job["bootstraps"],
            verbose=False,
        )
    from alibi_detect.cd import MMDDriftOnline

    return MMDDriftOnline(
        reference,
        ert=job["ert"],
        window_size=job["windows"][-1],
        n_bootstraps=job["bootstraps"],
        backend="pytorch",
        device="cpu",
        verbose=False,
    )


def main() -> None:
    job = json.loads(sys.stdin.read())
    arrays = np.load(sys.argv[1], allow_pickle=False)
    begin = time.process_time()
    found = detector(job, arrays["reference"].astype(np.float32)[:, None])
    fit = time.process_time() - begin
    answer: dict[str, Any] = {"fit_seconds": fit, "stops": {}}
    # MMD's record of all statistics belongs to a detector within.
    keeper = getattr(found, "_detector", found)
    begin, values = time.process_time(), 0
    for name in job["names"]:
        streams = arrays[name].astype(np.float32)
        stops = []
        for column in streams.T:
            found.reset_state()
            rows: list[int] = []
            since = 0
            for row, value in enumerate(column):
                values += 1
                drifted = found.predict(np.array([value]), return_test_stat=False)["data"]
                if drifted["is_drift"]:
                    rows.append(row)
                    if row >= job["ends"][name]:
                        break
                    found.reset_state()
                    since = row
                elif row - since > 0 and (row - since) % 1000 == 0:
                    # Its record of all statistics is copied at each step; nothing reads it here.
                    keeper.test_stats = keeper.test_stats[-1:]
                    keeper.drift_preds = keeper.drift_preds[-1:]
            stops.append(rows)
        answer["stops"][name] = stops
    answer["us"] = (time.process_time() - begin) / max(values, 1) * 1e6
    answer["values"] = values
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
