"""The control API: health, status, metrics and recent records, on a port of its own."""
