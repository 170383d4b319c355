"""Errors of load tests. Messages name the place, the problem and what to do."""

from __future__ import annotations


class LoadTestError(Exception):
    """Base class: nothing could be measured. Exit code 2."""


class PlanError(LoadTestError):
    """A plan, payload or trace is invalid; names the file and the place in it."""


class TargetError(LoadTestError):
    """The target must not be loaded, or cannot be reached."""


class GeneratorError(LoadTestError):
    """The load generator failed; nothing is known of the target."""
