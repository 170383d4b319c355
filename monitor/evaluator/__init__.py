"""The evaluation of what many sidecars publish: the two stages of one process, over Kafka."""
