"""The evaluation plane: one process that takes records from the workers and says what they mean."""
