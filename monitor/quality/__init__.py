"""Data quality: rules on single values and rows, whose rates are watched."""
