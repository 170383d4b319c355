"""Unary calls of gRPC through the sidecar and through Envoy: CPU per call, latency, memory."""

from __future__ import annotations

from benchmarks.harness import Result


def run(quick: bool) -> Result:
    """Measure all; see ``benchmarks.grpc.course``."""
    # Imported when asked for: backend and load are programs in this package and need none of it.
    from benchmarks.grpc.course import run as measured

    return measured(quick)
