"""Benchmarks of silent failure: drift, faults in real data, decay."""
