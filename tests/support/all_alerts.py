"""Every alert that objectives can have."""

from __future__ import annotations

ALL = {
    "version": 1,
    "service": "everything",
    "installation": True,
    "slos": [
        {"name": "availability", "objective": "99.9 %", "availability": {}},
        {"name": "latency", "latency": {"within": "50ms", "quantile": "99 %"}},
        {"name": "between", "latency": {"within": "60ms", "quantile": "99 %"}},
        {"name": "strict", "latency": {"within": "60ms", "quantile": "99 %", "by": "strict"}},
        {"name": "tail", "objective": "90 %", "quantile": {"quantile": 0.999, "at_most": "80ms"}},
        {"name": "predictions", "objective": "99 %", "predictions": {}},
        {"name": "features", "objective": "99 %", "features": {}},
        {"name": "rules", "objective": "99 %", "rules": {}},
        {"name": "accuracy", "objective": "99 %", "performance": {"at_least": 0.9}},
        {"name": "labels", "objective": "90 %", "freshness": {"within": "6h"}},
        {"name": "cost", "objective": "90 %", "cost": {"at_most": 0.01}},
    ],
}
