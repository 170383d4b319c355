"""The road through Kafka: what sidecars publish, and what comes back to them."""
