"""What is sent, and what the answers must be."""
