"""Continuous validation: known cases are sent to the models, and the responses checked."""
