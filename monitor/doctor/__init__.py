"""Checks of a configuration against reality, each with its fix: ``understudy doctor``."""
