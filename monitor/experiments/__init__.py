"""Experiments on live traffic: who gets which arm, what comes of it, and what is done about it."""
