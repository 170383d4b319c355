"""What is wrong with the declaration of an experiment."""

from __future__ import annotations


class ExperimentError(ValueError):
    """``path`` names the field within the experiment, such as ``metrics[1].margin``."""

    def __init__(self, path: str, problem: str) -> None:
        self.path = path
        self.problem = problem
        super().__init__(f"{path}: {problem}" if path else problem)

    def under(self, prefix: str) -> ExperimentError:
        """The same fault, seen from further up."""
        return ExperimentError(f"{prefix}.{self.path}" if self.path else prefix, self.problem)
