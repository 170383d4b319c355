"""Where commands find the control API, and what they authenticate with."""

DEFAULT_URL = "http://127.0.0.1:9090"
TOKEN = "UNDERSTUDY_TOKEN"  # noqa: S105  # the name of a variable
"""The environment variable that holds the bearer token of the control API."""
