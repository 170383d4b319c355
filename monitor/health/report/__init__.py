"""The drift report: one set of rows against another, on files."""
