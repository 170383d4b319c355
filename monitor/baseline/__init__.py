"""Baselines: the usual distribution of a model's columns, built, merged, shown and stored."""
