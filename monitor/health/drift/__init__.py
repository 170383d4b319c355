"""Live drift detection: rows are encoded by a baseline, checked, and tested for drift."""
