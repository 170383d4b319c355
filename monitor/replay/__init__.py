"""Recorded logs: written by the service, and run through its evaluation again."""
