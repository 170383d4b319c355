"""The console: the status page, its scripts, and pages of findings and objectives."""
