"""Benchmarks of evaluation over Kafka."""
