"""Late labels and rewards, joined to their predictions."""
