"""What may be said of latencies and failures, and with what certainty."""
