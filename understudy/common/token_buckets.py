"""Edges of the histograms of language models: times and numbers of tokens.

Times have the edges of vLLM's own metrics, so that both can be laid over each other.
"""

from __future__ import annotations

FIRST_TOKEN_EDGES = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
PER_TOKEN_EDGES = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0),
)
WHOLE_EDGES = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0),
    *(240.0, 480.0, 960.0, 1920.0, 7680.0),
)
"""Seconds."""
TOKEN_EDGES = tuple(float(digit * 10**power) for power in range(6) for digit in (1, 2, 5))
"""Buckets of numbers of tokens."""
COST_EDGES = tuple(digit * 10.0**power for power in range(-7, 2) for digit in (1, 2, 5))
"""Buckets of what an answer costs, in any currency."""
