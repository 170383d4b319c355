"""Understudy's running service: everything that sees live traffic."""

__version__ = "0.1.0"
