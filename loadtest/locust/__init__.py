"""Locust with an open loop: its scenarios, workers, web page and reports over our engine."""
