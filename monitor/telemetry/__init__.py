"""Prometheus exposition of the workers' counters and of the evaluation."""
