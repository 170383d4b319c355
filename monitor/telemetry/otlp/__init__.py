"""OpenTelemetry: spans, metrics and events by OTLP. The SDK is imported only where it is used."""
