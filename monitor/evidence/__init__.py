"""Evidence of records: decoded, paired and joined, as columns. Embedded and over Kafka alike."""
