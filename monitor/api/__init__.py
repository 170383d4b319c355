"""The control API: health, status, metrics and recent records, on a separate port."""

import os

# FastAPI imports OpenTelemetry's API, which fails where this names a propagator that is not
# installed; nothing here propagates by it.
os.environ.pop("OTEL_PROPAGATORS", None)
