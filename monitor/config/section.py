"""What every mapping of the configuration file has in common."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic_core import CoreSchema


class Section(BaseModel):
    """Unknown keys are refused: a misspelt limit must not silently be no limit.

    Types are strict: ``rate: true`` is not a number, ``version: 1`` is not a text. The docstring of
    an attribute is the description of its key in the JSON Schema.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        schema = handler(core_schema)
        texts = _descriptions(cls)
        for name, part in handler.resolve_ref_schema(schema).get("properties", {}).items():
            if name in texts:
                part.setdefault("description", texts[name])
        return schema


def _descriptions(section: type[Section]) -> dict[str, str]:
    """The docstrings of the attributes by key.

    Pydantic's own ``use_attribute_docstrings`` reads the source whenever the module is imported,
    which is a quarter of what the configuration costs each process at its start.
    """
    import ast
    import inspect
    import textwrap

    found = {}
    for one in reversed(section.__mro__):
        if not issubclass(one, Section) or one is Section:
            continue
        (statement,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        assert isinstance(statement, ast.ClassDef)
        for attribute, text in pairwise(statement.body):
            if isinstance(attribute, ast.AnnAssign) and isinstance(attribute.target, ast.Name):
                name = attribute.target.id
                if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                    key = section.model_fields[name].alias or name
                    found[key] = inspect.cleandoc(str(text.value.value))
    return found
