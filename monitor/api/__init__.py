"""The control API: health, status, metrics and recent records, on a separate port."""
