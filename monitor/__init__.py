"""Understudy's running service: everything that sees live traffic."""
