"""The ways in which people and systems are told of findings."""
