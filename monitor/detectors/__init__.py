"""Detectors of change: pure numpy, no clock, no files."""
