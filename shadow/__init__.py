"""Decisions about champion and challengers: pure, without sockets, clocks or files."""
