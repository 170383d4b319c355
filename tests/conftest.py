"""Fixtures that tests of several rooms use. Everything heavy starts only when a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.support.browser import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.support.kafka_cluster import Cluster

# No test is about time: a machine may be busy.
settings.register_profile("understudy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("understudy")


@pytest.fixture(scope="module")  # while it is there, its loop runs, and no other one can
def browser() -> Iterator[Browser]:
    """A real browser without a window; see :mod:`tests.support.browser`."""
    yield from chromium()


@pytest.fixture(scope="session")
def _kafka() -> Iterator[Cluster]:
    from tests.support.kafka_cluster import Cluster

    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def kafka_cluster(_kafka: Cluster) -> Iterator[Cluster]:
    """Three real Kafka nodes, shared by the session; whatever a test does to them is put right."""
    _kafka.heal()
    yield _kafka
    _kafka.heal()
