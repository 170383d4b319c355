"""The sidecar against Envoy, nginx and an aiohttp proxy: CPU per request, latency added, memory."""

from benchmarks.proxy.course import run

__all__ = ["run"]
