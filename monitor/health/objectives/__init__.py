"""Whether the objectives of the configuration are met, by a test that is valid at any time."""
