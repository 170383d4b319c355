"""Rules run in both versions of Prometheus."""

from tests.support.promtool import promtool

__all__ = ["promtool"]
