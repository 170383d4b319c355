"""Faults on purpose, on the format and the run loop of the Chaos Toolkit."""
