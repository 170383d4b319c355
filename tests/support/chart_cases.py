"""Manifests of every case of values."""

from __future__ import annotations

import pytest

from tests.support.chart import CASES

each_case = pytest.mark.parametrize("case", CASES)


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())
