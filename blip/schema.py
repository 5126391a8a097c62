"""What every configured part has: named fields, checked types, no unknown keys, errors of one line."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from blip.errors import BlipError
from blip.files import regular

T = TypeVar("T", bound="Schema")
Key = tuple[int | str, ...]

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"
"""Names that become parts of paths."""
Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveFraction = Annotated[float, Field(gt=0, le=1)]
LARGEST, SMALLEST, WHOLE = 1e37, 1e-37, 2**53
"""Numbers that can be computed with: in float32, and whole ones exactly in float64."""
YAML_BYTES, YAML_NODES = 2**20, 100_000
"""Most that a YAML file has, and what its aliases and merges may expand to."""


def later(default: Any) -> Any:
    """A field that came later than runs that stay known: while it says nothing but `default`, it is not written."""
    return Field(default=default, exclude_if=lambda value: value == default)


class Schema(BaseModel):
    """Base of all configuration; immutable, and an unknown key is an error."""

    # The docstring below a field is its description, which `blip methods` prints.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _truth_is_no_number(cls, values: Any) -> Any:
        """Pydantic takes yes for 1, and 1 for yes."""
        for name, value in values.items() if isinstance(values, dict) else ():
            kinds = _kinds(cls.model_fields[name].annotation) if name in cls.model_fields else []
            if {int, float} & {*kinds} and bool not in kinds and any(isinstance(item, bool) for item in _items(value)):
                raise wrong(f"expected a number, not {str(value).lower()}", name)
            if kinds == [bool] and not isinstance(value, bool):
                raise wrong(f"expected true or false (found {value!r})", name)
        return values

    @field_validator("*")
    @classmethod
    def _can_be_computed(cls, value: Any) -> Any:
        for number in _items(value):
            if isinstance(number, float) and number and not SMALLEST <= abs(number) <= LARGEST:
                found = f" (found {number:g})" if isinstance(value, list | dict) else ""  # a value alone is told anyway
                raise ValueError(f"expected 0 or a number from {SMALLEST:g} to {LARGEST:g}{found}")
            if isinstance(number, int) and abs(number) > WHOLE:
                raise ValueError(f"expected a number of at most {WHOLE}")
        return value


def _items(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list | tuple) else [value]


def validate(model: type[T], values: Any, where: str) -> T:
    """`values` as a `model`. Raises BlipError: one line with `where`, the key, what was expected and what was found."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise BlipError(f"{where}: {first_problem(error, model, values)}") from None


def wrong(message: str, *key: str) -> ValidationError:
    """What a validator raises to say what is wrong with a key below its own."""
    problem = PydanticCustomError("wrong", message)
    return ValidationError.from_exception_data("", [{"type": problem, "loc": key, "input": None}])


def as_said(problem: ErrorDetails) -> PydanticCustomError:
    """A problem of a ValidationError, to be part of another one."""
    return PydanticCustomError(problem["type"], "{said}", {"said": problem["msg"]})


def moved(error: ValidationError, key: Callable[[Key], Key]) -> ValidationError:
    """The same problems, each at what `key` makes of its own."""
    problems: list[InitErrorDetails] = [
        {
            "type": as_said(problem),
            "loc": key(problem["loc"]),
            "input": problem["input"],
        }
        for problem in error.errors()
    ]
    return ValidationError.from_exception_data("", problems)


def first_problem(error: ValidationError, model: type[BaseModel] | None = None, values: Any = None) -> str:
    """Of what is wrong with `values` one thing: its key and what was expected there."""
    # A misspelt key is also a missing one: name the one that is there.
    first = min(error.errors(), key=lambda e: e["type"] not in ("extra_forbidden", "unknown_key"))
    key = _key(first["loc"], values) or "the whole"
    if first["type"] == "extra_forbidden":
        known = ", ".join(sorted(_fields(model, first["loc"][:-1]))) if model else ""
        expected = "unknown key" + (f" (known: {known})" if known else "")
    elif "expected_tags" in (about := first.get("ctx", {})):
        by = about["discriminator"].strip("'")
        expected = f"{by}: expected one of {about['expected_tags']} (found {about['tag']!r})"
    elif first["type"] == "union_tag_not_found":
        expected = f"{about['discriminator']}: this key is missing".replace("'", "") if about else first["msg"]
    elif first["type"] == "missing":
        expected = "this key is missing"
    else:
        expected = first["msg"].removeprefix("Value error, ")
        found = first["input"]
        if isinstance(found, str | int | float | bool) and first["type"] != "unknown_key":
            expected += f" (found {found!r})"
    return f"{key}: {expected}"


def _fields(model: type[BaseModel], location: Key) -> Iterable[str]:
    """Known keys at a place below a model; none where it could be of several models."""
    kinds = [model]
    for part in location:
        if len(kinds) > 1:  # of a union, of which pydantic names the chosen member
            kinds = [kind for kind in kinds if part in get_args(kind.model_fields["name"].annotation)]
        elif part in kinds[0].model_fields:
            named = _kinds(kinds[0].model_fields[str(part)].annotation)
            kinds = [kind for kind in named if issubclass(kind, BaseModel)]
        elif not isinstance(part, int):
            return ()
        if not kinds or (len(kinds) > 1 and not all("name" in kind.model_fields for kind in kinds)):
            return ()
    return kinds[0].model_fields if len(kinds) == 1 else ()


def _kinds(annotation: Any) -> list[type]:
    """The classes that an annotation names, within unions, lists and the like."""
    within = [kind for part in get_args(annotation) for kind in _kinds(part)]
    return within or ([annotation] if isinstance(annotation, type) else [])


def _key(location: Key, values: Any) -> str:
    """Dotted key of an error. Pydantic names the chosen member of a union as well, which is no key."""
    parts = []
    for part in location[:-1]:
        if not isinstance(values, dict) or part in values:
            parts.append(part)
            values = values[part] if isinstance(values, dict | list) else None  # type: ignore[index]
    return ".".join(map(str, [*parts, *location[-1:]]))


class _UniqueKeys(yaml.SafeLoader):
    """YAML forbids a key that is there twice; PyYAML alone would keep the last one and say nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                problem = f"the key {key.value} is there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """What a YAML document holds. Raises yaml.YAMLError, also for what YAML itself cannot build or is not to expand."""
    if len(text) > YAML_BYTES:
        raise yaml.YAMLError(f"expected at most {YAML_BYTES} characters")
    loader = _UniqueKeys(text)
    try:
        node = loader.get_single_node()
        if _expanded(node, {}) > YAML_NODES:
            raise yaml.YAMLError(f"its aliases expand to more than {YAML_NODES} values")
        return None if node is None else loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError) as error:
        # A date or number that is none, such as 2024-13-45 or !!float x.
        raise yaml.YAMLError(f"a value cannot be read: {error}") from None
    finally:
        loader.dispose()


def _expanded(node: yaml.Node | None, sizes: dict[int, int]) -> int:
    """Values below a node, those of aliases counted each time; `sizes` holds those that are known."""
    if id(node) not in sizes:
        sizes[id(node)] = YAML_NODES + 1  # of one that holds itself
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
        sizes[id(node)] = 1 + sum(_expanded(part, sizes) for part in parts)
    return sizes[id(node)]


def read_text(path: Path) -> str:
    """A text file. Raises BlipError where it cannot be read."""
    try:
        return regular(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: bytes that are no text, or a path that is none
        reason = getattr(error, "strerror", None) or "not a text file"
        raise BlipError(f"{path}: cannot be read: {reason}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping. Raises BlipError where it cannot be read or holds something else."""
    try:
        values = parse_yaml(read_text(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", error)).split())
        raise BlipError(f"{path}{line}: not valid YAML: {problem}") from None
    if not isinstance(values, dict):
        raise BlipError(f"{path}: expected keys and values, found {type(values).__name__}")
    return values
