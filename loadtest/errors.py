"""What can go wrong with a load test: every message says what, where, and what helps."""

from __future__ import annotations


class LoadTestError(Exception):
    """Base of all of them: nothing could be measured. Exit code 2."""


class PlanError(LoadTestError):
    """A plan, payload or trace that cannot be used; names the file and the place in it."""


class TargetError(LoadTestError):
    """A target that must not be loaded, or that cannot be reached."""


def reason(error: Exception) -> str:
    """What the system says of a file, without its number and the name once more."""
    return str(getattr(error, "strerror", None) or error)
