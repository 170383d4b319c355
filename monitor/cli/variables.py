"""Environment variables that the commands read."""

TOKEN = "UNDERSTUDY_TOKEN"
"""The bearer token of the control API."""
