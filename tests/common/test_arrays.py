"""Distinct values of arrays."""

from __future__ import annotations

import numpy as np
import pytest

from understudy.common.arrays import distinct, quantile, quantiles


@pytest.mark.parametrize("kind", [np.float64, np.int64, np.uint8, np.bool_])
def test_distinct_values_are_those_of_numpy(kind: type) -> None:
    rng = np.random.default_rng(1)
    for shape in ((0,), (1,), (500,), (20, 30)):
        values = rng.integers(0, 40, shape).astype(kind)
        found = distinct(values)
        assert found.dtype == values.dtype
        assert found.tolist() == np.unique(values).tolist()


def test_quantiles_are_those_of_numpy() -> None:
    rng = np.random.default_rng(2)
    shares = np.concatenate([np.linspace(0.0, 1.0, 258), rng.random(50)])
    for size in (1, 2, 3, 200, 1_001):
        values = rng.lognormal(size=size).round(2)
        assert quantiles(values, shares).tolist() == np.quantile(values, shares).tolist()
        assert quantile(values, 0.95) == np.quantile(values, 0.95)
