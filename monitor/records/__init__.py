"""The record, batches, the hand-off from workers, the segment log, redaction and the audit log."""
