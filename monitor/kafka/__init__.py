"""Evaluation over Kafka: what sidecars publish, the evaluators, and the routes that come back."""
