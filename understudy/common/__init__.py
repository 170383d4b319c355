"""What the service and its clients share at the bottom: units, files, drawing, templates."""
