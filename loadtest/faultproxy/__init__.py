"""A TCP proxy that injects faults, controlled by the HTTP API of Toxiproxy."""
