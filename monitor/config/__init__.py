"""The configuration file: its schema, loading and validation, and the compiled plan.

Validated as a whole by pydantic, outside the workers, which get a compiled plan.
"""
