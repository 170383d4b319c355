"""MLPerf Inference's limits of language models, which objectives may name."""

from __future__ import annotations

PRESETS = {
    "llama2-70b": (2.0, 0.2),
    "llama2-70b-interactive": (0.45, 0.04),
    "llama3.1-8b": (2.0, 0.1),
    "llama3.1-8b-interactive": (0.5, 0.03),
    "llama3.1-405b": (6.0, 0.175),
    "llama3.1-405b-interactive": (4.5, 0.08),
    "deepseek-r1": (2.0, 0.08),
    "deepseek-r1-interactive": (1.5, 0.015),
    "gpt-oss-120b": (3.0, 0.08),
    "gpt-oss-120b-interactive": (2.0, 0.02),
    "mixtral-8x7b": (2.0, 0.2),
}
"""MLPerf Inference's limits for ttft and tpot in seconds, by scenario: server, and interactive."""
