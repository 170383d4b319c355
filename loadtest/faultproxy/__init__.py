"""A TCP proxy with faults on purpose, driven by the HTTP API of Toxiproxy."""
