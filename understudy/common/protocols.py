"""Protocols of language models by path: the data plane labels requests with them, codecs read them.

Only the standard library is used here: workers import this module.
"""

from __future__ import annotations

_BASE = r"(?:.*/v\d+[a-z0-9]*|.*/openai(?:/deployments/[^/]+)?|.*/engines/[^/]+|)"
"""What comes before the last part of OpenAI's paths: its version under any prefix, as KServe and
LiteLLM have it, or nothing, as at llama.cpp's server."""

LLM_PATHS = {
    "openai-chat": r".*/chat/completions",
    "openai-completions": _BASE + r"/completions",
    "openai-responses": _BASE + r"/responses",
    "openai-embeddings": _BASE + r"/(?:embeddings|rerank)",
    "anthropic-messages": r".*/v1/messages",
    "triton-generate": r".*/v2/models/[^/]+(?:/versions/[^/]+)?/generate(?:_stream)?",
    "ollama": r".*/api/(?:chat|generate)",
    "tgi": r".*/generate(?:_stream)?",
}
"""By protocol, the regular expression of whole paths that ask for an answer. The order matters:
the first that fits counts."""

MARKS_END = frozenset(LLM_PATHS) - {"openai-embeddings", "triton-generate"}
"""Protocols whose streams say that they are whole: by a finish reason, or a last event. Triton's do
not."""
