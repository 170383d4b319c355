"""The load engine, its statistics and its faults, beside peers and known answers."""
