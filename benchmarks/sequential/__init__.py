"""Anytime-valid methods: error rates, time to decision and cost, by simulation beside peers."""
