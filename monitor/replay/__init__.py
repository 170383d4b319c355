"""Runs a recorded log through the evaluation again."""
