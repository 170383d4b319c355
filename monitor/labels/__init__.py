"""Labels and rewards that come late, joined to the predictions that they are about."""
