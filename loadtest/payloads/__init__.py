"""Payloads of requests, and checks of responses."""
