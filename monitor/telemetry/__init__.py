"""Prometheus exposition of what the workers count and the evaluation plane finds out."""
