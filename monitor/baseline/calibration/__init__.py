"""What a score means: how often it was right, as a whole and in parts of the data."""
