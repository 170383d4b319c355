"""Continuous validation: known cases are sent to the models, and their answers looked at."""
