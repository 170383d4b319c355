"""Open-loop load for Locust: its scenarios, workers, web page and reports, with this engine."""
