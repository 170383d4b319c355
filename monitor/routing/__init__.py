"""Routing of requests: the workers' plan, and the assignment of units to arms on disk."""
