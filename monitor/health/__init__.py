"""Health of models: drift, data quality, performance and validation."""
