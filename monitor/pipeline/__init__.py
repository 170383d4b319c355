"""The evaluation plane: one process that turns the workers' records into statistics."""
