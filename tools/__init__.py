"""Programs for work on this repository: what generates files, and what fetches parts. Not shipped."""
