"""Benchmarks of what is exported."""
