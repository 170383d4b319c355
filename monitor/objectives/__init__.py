"""Several objectives side by side: accuracy, latency, errors, throughput, cost, energy."""
