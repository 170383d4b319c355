"""The file of a plan: YAML with stages and what each has to meet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from pydantic import Field, ValidationError, create_model

from understudy.common.problems import problems
from understudy.common.yaml_text import YamlError, read_text, read_yaml
from understudy.loadtest.errors import PlanError
from understudy.loadtest.gate.plan import Part, Plan, Stage
from understudy.loadtest.gate.stages.kinds import KINDS
from understudy.loadtest.payloads.variables import expand

if TYPE_CHECKING:
    AnyStage = Stage
else:
    AnyStage = create_model(
        "Stage",
        __base__=Stage,
        **{name: (kind.settings | None, None) for name, kind in KINDS.items()},
    )


class PlanFile(Plan):
    """A plan whose stages may be of all kinds."""

    stages: Annotated[list[AnyStage], Field(min_length=1, max_length=100)]


def load_plan(path: Path) -> Plan:
    """Read a plan; file names in it are relative to it. Raises PlanError with the places.

    ``path`` is a YAML file, as docs/gate.md describes.

    >>> import tempfile
    >>> text = '''
    ... version: 1
    ... objectives: {p99: 50ms}
    ... payloads: {template: {instances: [[1.0]]}}
    ... stages: [{name: steady, load: {rate: 100, seconds: 60}}]
    ... '''
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = (Path(folder) / "gate.yaml").write_text(text)
    ...     load_plan(Path(folder) / "gate.yaml").stages[0].name
    'steady'
    """
    try:
        data = read_yaml(read_text(path))
    except YamlError as error:
        raise PlanError(f"{path}: {error}") from error
    return plan_of(data, path.parent, str(path))


def plan_of(data: Any, folder: Path, source: str) -> Plan:
    """A plan from what its file holds; ``folder`` is that of the file names in it."""
    if not isinstance(data, dict):
        raise PlanError(f"{source}: a plan must be a mapping with stages")
    try:
        return PlanFile.model_validate(_absolute(expand(data, ""), folder, PlanFile))
    except PlanError as error:
        raise PlanError(f"{source}: {error}") from None
    except ValidationError as error:
        found = problems(error, data, PlanFile)
        raise PlanError(
            "\n".join(f"{source}: {place or 'plan'}: {message}" for place, message in found)
        ) from None


def _absolute(value: Any, folder: Path, part: type[Part]) -> Any:
    """A part of a plan, in which names of files are relative to ``folder``. Names that are chosen
    freely, as those of headers and columns, may be those of keys."""
    if not isinstance(value, dict):
        return value
    kinds = {
        name: tuple(_kinds(field.annotation))
        for key, field in part.model_fields.items()
        for name in (key, field.alias or key)
    }
    found: dict[Any, Any] = {}
    for key, inner in value.items():
        of = kinds.get(key, ())
        parts = [one for one in of if isinstance(one, type) and issubclass(one, Part)]
        if Path in of and isinstance(inner, str):
            found[key] = str(folder / inner)
        elif parts and isinstance(inner, list):
            found[key] = [_absolute(one, folder, parts[0]) for one in inner]
        else:
            found[key] = _absolute(inner, folder, parts[0]) if parts else inner
    return found


def _kinds(annotation: Any) -> Iterator[Any]:
    """An annotation, and what it is made of."""
    yield annotation
    for one in get_args(annotation):
        yield from _kinds(one)
