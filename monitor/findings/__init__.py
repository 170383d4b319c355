"""What is found to be wrong: its life from opening to closing, and who is told of it."""
