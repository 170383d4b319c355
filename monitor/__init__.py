"""The running service: everything that processes live traffic."""
