"""Fuzzing, a million inputs of a kind: the fuzzers themselves are in ``tests/fuzz``."""
