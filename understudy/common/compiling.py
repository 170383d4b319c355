"""What sources tell mypyc, which compiles the data plane: see :mod:`understudy.common.compiled`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr as compiled_class
else:

    def compiled_class(**_):
        """Options of a class for mypyc; in Python they mean nothing."""
        return lambda kind: kind


__all__ = ["compiled_class"]
