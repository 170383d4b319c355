"""The record log on disk: written, read, shown, checked and exported."""
