"""The console: its pages, scripts and charts."""
