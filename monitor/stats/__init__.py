"""Mergeable summaries of fixed size."""
