"""Verdicts of whole experiments on simulated services: identical arms, and worse ones."""
