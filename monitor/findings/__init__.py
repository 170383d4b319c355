"""Findings: their life cycle from opening to closing, and the notifications."""
