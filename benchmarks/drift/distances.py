"""PSI, Jensen-Shannon, Kolmogorov-Smirnov and Wasserstein, 10,000 x 20 against 10,000 x 20.

Ours beside scipy for the values, and beside Evidently and NannyML for the cost, on the same
samples; all in turns within one run, each peer in a process and an environment of its own. Peers
make a report or a data frame of it, which ours does not. Jensen-Shannon and PSI depend on the
groups, which everybody chooses otherwise, so these have no values beside them.

numpy sorts with AVX-512 where it finds it; on AMD processors up to the fourth generation that is
slower than AVX2, so both are shown.

    python -m benchmarks drift-distances [--quick]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.drift.data import PARTS
from benchmarks.harness import Claim, Result, environment, median
from understudy.monitor.detectors.distances import between

ROWS, COLUMNS = 10_000, 20
SEED = 3
_SAMPLES = f"""
import json, sys, time, warnings
warnings.filterwarnings("ignore")
import numpy as np
a, b = np.random.default_rng({SEED}).lognormal(size=(2, {ROWS}, {COLUMNS}))
def cpu(work):
    begin = time.process_time()
    work()
    return (time.process_time() - begin) * 1e3
"""
_OURS = (
    _SAMPLES
    + """
from understudy.monitor.detectors.distances import between
between(a, b)
print(json.dumps(min(cpu(lambda: between(a, b)) for _ in range(int(sys.argv[1])))))
"""
)
_EVIDENTLY = (
    _SAMPLES
    + """
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.metrics import ValueDrift
names = [f"x{n}" for n in range(a.shape[1])]
what = DataDefinition(numerical_columns=names)
x, y = (Dataset.from_pandas(pd.DataFrame(s, columns=names), data_definition=what) for s in (a, b))
methods = ("psi", "jensenshannon", "ks", "wasserstein")
report = Report([ValueDrift(column=n, method=m) for m in methods for n in names])
print(json.dumps(min(cpu(lambda: report.run(y, x)) for _ in range(2))))
"""
)
_NANNYML = (
    _SAMPLES
    + """
import nannyml, pandas as pd
names = [f"x{n}" for n in range(a.shape[1])]
x, y = (pd.DataFrame(s, columns=names) for s in (a, b))
methods = ["jensen_shannon", "kolmogorov_smirnov", "wasserstein", "hellinger"]
found = nannyml.UnivariateDriftCalculator(
    column_names=names, continuous_methods=methods, chunk_size=len(a)).fit(x)
print(json.dumps(min(cpu(lambda: found.calculate(y)) for _ in range(2))))
"""
)
_PEERS = {
    "evidently": (_EVIDENTLY, ("evidently==0.7.*", "pandas<3")),
    "nannyml": (_NANNYML, ("nannyml==0.13.1", "statsmodels")),
}
_AVX2 = {"NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL"}


def _once(python: str, code: str, rounds: int, more: dict[str, str]) -> float | None:
    quiet = {**os.environ, "NML_DISABLE_USAGE_LOGGING": "1", "OMP_NUM_THREADS": "1", **more}
    command = [python, "-c", code, str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, env=quiet, check=False)
    if done.returncode:
        print(f"  {done.stderr.strip()[-300:]}", file=sys.stderr, flush=True)
        return None
    return float(json.loads(done.stdout.splitlines()[-1]))


def _peer(name: str) -> str | None:
    """The interpreter of a peer's own environment, made on first use."""
    _code, packages = _PEERS[name]
    folder = PARTS.parent / name
    python = str(folder / "bin" / "python")
    if not (folder / "bin" / "python").exists():
        venv.EnvBuilder(with_pip=True).create(folder)
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "-q", *packages]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"  no {name}: {done.stderr.strip()[-300:]}", file=sys.stderr, flush=True)
        return None
    return python


def _equal() -> dict[str, float]:
    """Largest differences from scipy, over plain and tied samples of equal and unequal sizes."""
    rng = np.random.default_rng(SEED)
    worst = {"ks": 0.0, "wasserstein": 0.0}
    for n, m, digits in ((10_000, 10_000, 12), (10_000, 7_001, 12), (5_000, 5_000, 1), (300, 7, 1)):
        a = rng.lognormal(size=(n, COLUMNS)).round(digits)
        b = rng.lognormal(0.1, 1.1, size=(m, COLUMNS)).round(digits)
        found = between(a, b)
        for k in range(COLUMNS):
            ks = stats.ks_2samp(a[:, k], b[:, k], method="asymp").statistic
            far = stats.wasserstein_distance(a[:, k], b[:, k])
            worst["ks"] = max(worst["ks"], abs(found.ks[k] - float(ks)))
            worst["wasserstein"] = max(
                worst["wasserstein"], abs(found.wasserstein[k] - float(far)) / far
            )
    return worst


def run(quick: bool = False) -> Result:
    result = Result("drift-distances", environment(quick=quick, rows=ROWS, columns=COLUMNS))
    worst = _equal()
    contenders: dict[str, tuple[str | None, str, dict[str, str]]] = {
        "understudy": (sys.executable, _OURS, {}),
        "understudy, AVX-512 off": (sys.executable, _OURS, _AVX2),
    }
    for name in _PEERS:
        contenders[name] = (_peer(name), _PEERS[name][0], {})
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(1 if quick else 5):
        for name, (python, code, more) in contenders.items():
            ms = _once(python, code, 9, more) if python is not None else None
            if ms is not None:
                found[name].append(ms)
        print(f"  round {number + 1}", file=sys.stderr, flush=True)
    ours = median(found["understudy"])
    assert ours is not None  # its process raises when it fails
    rows: list[list[Any]] = [
        [name, round(m, 2), round(m / ours, 2)]
        if (m := median(ms)) is not None
        else [name, None, None]
        for name, ms in found.items()
    ]
    result.measurements = {"ms": found, "largest difference from scipy": worst}
    result.tables.append(("Processor time", ["who", "ms", "of ours"], rows))
    result.claims = [
        Claim("PSI, JS, KS and Wasserstein, 10k x 20 (ms of CPU)", ours, 12.0, "<="),
        Claim(
            "the same with numpy's AVX-512 off",
            median(found["understudy, AVX-512 off"]),
            12.0,
            "<=",
        ),
        Claim("largest difference from scipy, KS", worst["ks"], 1e-12, "<="),
        Claim("largest relative one, Wasserstein", worst["wasserstein"], 1e-12, "<="),
        *(
            Claim(f"ours / {name}'s", ours / theirs, 1.0, "<=")
            for name in _PEERS
            if (theirs := median(found[name])) is not None
        ),
    ]
    return result
