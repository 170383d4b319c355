"""What several tests use: processes, worlds, servers. One idea per file; nothing here is a test."""
