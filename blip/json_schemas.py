"""JSON schemas of the files that are written by hand, by which editors complete and check them."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from blip.claims import Claims
from blip.config import KINDS, Suite
from blip.methods import METHODS

DIALECT = GenerateJsonSchema.schema_dialect
MODE = "validation"


class _WithoutTitles(GenerateJsonSchema):
    """A key's name is title enough."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Never."""
        return False


def experiment_schema() -> dict[str, Any]:
    """Of an experiment file: of the kind by whose key it is known, with the settings of every method."""
    settings = {name: method.Settings for name, method in METHODS.items()}
    references, definitions = _referenced(*KINDS, *settings.values())
    methods = {name: references[model] for name, model in settings.items()}
    for kind in KINDS:
        keys = definitions[kind.__name__]["properties"]
        keys["methods"] |= {"properties": methods, "additionalProperties": False}
        del keys["variant"]  # which no file has
    del definitions["Variant"]
    chosen = references[KINDS[-1]]
    for kind in reversed(KINDS[:-1]):
        chosen = {"if": {"required": [kind.key]}, "then": references[kind], "else": chosen}
    return {"$schema": DIALECT, "title": "Experiment", **chosen, "$defs": definitions}


def suite_schema() -> dict[str, Any]:
    """Of a suite file."""
    return {"$schema": DIALECT, **Suite.model_json_schema(schema_generator=_WithoutTitles)}


def claims_schema() -> dict[str, Any]:
    """Of a claims file."""
    return {"$schema": DIALECT, **Claims.model_json_schema(schema_generator=_WithoutTitles)}


SCHEMAS = {"experiment": experiment_schema, "suite": suite_schema, "claims": claims_schema}
"""Every kind of file, and what makes its schema."""


def _referenced(*models: type[BaseModel]) -> tuple[dict[type[BaseModel], dict[str, Any]], dict[str, Any]]:
    """References to models, and the definitions that they refer to."""
    inputs = [(model, MODE) for model in dict.fromkeys(models)]
    references, schema = models_json_schema(inputs, schema_generator=_WithoutTitles)  # type: ignore[arg-type]
    return {model: references[model, mode] for model, mode in inputs}, schema["$defs"]  # type: ignore[index]
