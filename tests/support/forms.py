"""Tests that only the data plane in Python can run."""

from __future__ import annotations

import pytest

from understudy.common import compiled

in_python = pytest.mark.skipif(
    compiled.form().name == compiled.COMPILED,
    reason="NOT TESTED: what is native cannot be replaced or stood in for; the form in Python is tested",
)
"""For tests that replace methods of the data plane, or give it objects of other classes."""
