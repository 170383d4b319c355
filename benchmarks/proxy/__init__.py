"""The sidecar against Envoy, nginx and an aiohttp proxy: CPU per request, latency added, memory."""

from __future__ import annotations

from benchmarks.harness import Result


def run(quick: bool) -> Result:
    """Measure all; see ``benchmarks.proxy.course``."""
    # Imported when asked for: backend and load are programs in this package and need none of it.
    from benchmarks.proxy.course import run as measured

    return measured(quick)
