"""What the road through Kafka costs, and whether anything gets lost on it."""
