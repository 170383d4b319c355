"""Streams of the API end at once: these tests read every route to its end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from understudy.monitor.api import stream


@pytest.fixture(autouse=True, scope="session")
def brief_streams() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stream, "STREAM_SECONDS", 0.0)
        yield
