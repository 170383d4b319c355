"""The configuration file: its shape, how it is read, what becomes of it.

Validated as a whole by pydantic, outside the workers, which get a compiled plan.
"""
