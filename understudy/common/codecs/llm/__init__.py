"""Protocols of language models: prompts and answers, whole or as streams of events.

Text never becomes a column: what is derived from it does, see :mod:`.columns`.
"""
