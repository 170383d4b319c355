"""The whole service under load for an hour, with a fault every ten seconds."""
