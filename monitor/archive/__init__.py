"""The log of records on disk: read, shown, checked and exported."""
