"""The census of Massachusetts that ships inside nannyml, and nannyml's own estimates on it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import venv
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.drift.data import PARTS, archive

Array = npt.NDArray[np.float64]
NANNYML = ("nannyml==0.13.1", "statsmodels")
NOT_FEATURES = frozenset(("id", "year", "employed", "prediction", "predicted_probability"))
PEER = """
import json, sys, warnings
warnings.filterwarnings("ignore")
import nannyml
reference, analysis, _ = nannyml.load_us_census_ma_employment_data()
estimator = nannyml.CBPE(problem_type="classification_binary", y_pred="prediction",
    y_pred_proba="predicted_probability", y_true="employed", metrics=["accuracy"],
    chunk_size=int(sys.argv[1])).fit(reference)
found = estimator.estimate(analysis).filter(period="analysis").to_df(multilevel=False)
print(json.dumps({"value": found["accuracy_value"].tolist(),
    "alert": [bool(a) for a in found["accuracy_alert"]],
    "lower": float(found["accuracy_lower_threshold"].iloc[0]),
    "upper": float(found["accuracy_upper_threshold"].iloc[0])}))
"""


@dataclass(slots=True)
class Part:
    """Rows of one period: features by name, scores, labels."""

    cells: dict[str, list[Any]]
    scores: Array
    labels: Array

    @property
    def right(self) -> Array:
        return np.asarray((self.scores > 0.5) == (self.labels > 0.5), np.float64)

    def __len__(self) -> int:
        return len(self.scores)


def load() -> tuple[Part, Part]:
    """Reference and later rows. Raises MissingError."""
    from pyarrow import parquet

    with zipfile.ZipFile(archive("nannyml")) as whole:

        def table(name: str) -> Any:
            data = whole.read(f"nannyml/datasets/data/employment_MA_{name}.pq")
            return parquet.read_table(io.BytesIO(data))

        reference, later, target = table("reference"), table("analysis"), table("analysis_target")
    parts = []
    for rows, labels in ((reference, reference), (later, target)):
        names = [n for n in rows.column_names if n not in NOT_FEATURES]
        assert rows.column("id").to_pylist() == labels.column("id").to_pylist()
        parts.append(
            Part(
                {n: rows.column(n).to_pylist() for n in names},
                np.array(rows.column("predicted_probability").to_pylist(), np.float64),
                np.array(labels.column("employed").to_pylist(), np.float64),
            )
        )
    return parts[0], parts[1]


def peer(chunk: int) -> dict[str, Any] | None:
    """nannyml's own estimates, from a separate environment; None if it cannot be installed."""
    folder = PARTS.parent / "nannyml"
    python = folder / "bin" / "python"
    if not python.exists():
        venv.EnvBuilder(with_pip=True).create(folder)
    quiet = {**os.environ, "NML_DISABLE_USAGE_LOGGING": "1"}
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "-q", *NANNYML]
    done = subprocess.run(pip, capture_output=True, text=True, env=quiet, check=False)
    if not done.returncode:
        run = [str(python), "-c", PEER, str(chunk)]
        done = subprocess.run(run, capture_output=True, text=True, env=quiet, check=False)
    if done.returncode:
        print(f"  no nannyml: {done.stderr.strip()[-300:]}", file=sys.stderr, flush=True)
        return None
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
