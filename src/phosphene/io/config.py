"""Configuration: frozen models that refuse unknown keys, strict YAML, and where each value came from.

YAML is read by the rules of YAML 1.2: ``1e-4`` is a number, ``no`` and ``yes`` are texts, ``0123`` is 123; a key that
stands twice, an alias, or a tag is refused. What the models then accept is strict as well: a text never turns into a
number or a boolean on its own.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from phosphene.errors import ConfigError

FORMAT = 1
"""Version of config.yaml as written by this phosphene."""


class Config(BaseModel):
    """Base of every configuration: frozen, strict, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


C = TypeVar("C", bound=BaseModel)


# -- strict YAML -------------------------------------------------------------------------------------------------------


class _StrictLoader(yaml.SafeLoader):
    """YAML 1.2 scalars, no duplicate keys, no aliases."""

    # Empty, so that nothing of YAML 1.1 is inherited: there "no" is false (and Norway's code), and 12:30 is 750.
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  replaced per class

    def compose_node(self, parent: Any, index: Any) -> Any:
        # Aliases of aliases unfold a file of a kilobyte to gigabytes.
        if self.check_event(yaml.events.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.constructor.ConstructorError(None, None, "aliases (*name) are not allowed here", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float, bool)):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a plain text", key_node.start_mark)

            # PyYAML keeps the last and says nothing; whoever reads the file sees the first.
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' stands twice", key_node.start_mark
                )

            seen.add(key)
        return super().construct_mapping(node, deep)


def _construct_int(loader: _StrictLoader, node: Any) -> int:
    """A whole number; 0123 is 123 and not octal 83, as it was in YAML 1.1."""
    text = loader.construct_scalar(node)
    if text.lower().lstrip("+-").startswith(("0x", "0o")):
        return int(text, 0)
    return int(text)


# PyYAML's own pattern wants a dot and a signed exponent, and takes 1e-4 for a text.
_NUMBER = r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
for _kind, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(?:[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)", "-+0123456789"),
    ("float", rf"{_NUMBER}|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+.0123456789"),
):
    _StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"^(?:{_pattern})$"), list(_first))
_StrictLoader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def parse_yaml(text: str, where: str = "the text") -> Any:
    """Plain values from YAML text.

    Parameters
    ----------
    text : str
        of one document
    where : str, default "the text"
        it comes from, for the message

    Returns
    -------
    Any
        dicts, lists, texts, numbers, booleans and None

    Raises
    ------
    ConfigError
        Naming `where`, the line and the column: broken syntax, a key twice, an alias, a tag.
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)  # a SafeLoader, which makes no objects
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        if mark:
            place = f", line {mark.line + 1}, column {mark.column + 1}"
        else:
            place = ""

        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{where}{place}: {problem}. Mend this line and run again.") from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, a list in a list in a list ...
        raise ConfigError(f"{where}: {error}. Mend this value and run again.") from error


def read_yaml(file: str | Path) -> dict[str, Any]:
    """A YAML file that holds a mapping.

    Parameters
    ----------
    file : str or Path
        UTF-8

    Returns
    -------
    dict of str to Any
        empty for an empty file

    Raises
    ------
    ConfigError
        When it cannot be read, is not UTF-8, or is not a mapping.
    """
    file = Path(file)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"there is no configuration {file}; give the path of a YAML file.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration {file} cannot be read: {error}.") from error

    value = parse_yaml(text, str(file))
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{file} should hold 'key: value' lines but holds a {type(value).__name__}.")
    return value


def to_yaml(values: Mapping[str, Any]) -> str:
    """YAML text that `parse_yaml` reads back to the same values.

    Parameters
    ----------
    values : mapping of str to Any
        what JSON can hold

    Returns
    -------
    str
        with keys in the order they have
    """
    # Through JSON first: PyYAML would write a tuple with a tag, and a list that stands in two places as an alias.
    return yaml.safe_dump(json.loads(json.dumps(values)), sort_keys=False, allow_unicode=True, width=100)


# -- layers with origins -----------------------------------------------------------------------------------------------


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """``["recipe.alpha=10", "seed=3"]`` to dotted keys and values.

    Parameters
    ----------
    assignments : iterable of str
        as they stand after ``--set``

    Returns
    -------
    dict of str to Any
        values by the rules of YAML

    Raises
    ------
    ConfigError
        For a text without ``=``, an empty key, or the same key with two values.

    Examples
    --------
    >>> parse_assignments(["recipe.alpha=1e-4", "name=no"])
    {'recipe.alpha': 0.0001, 'name': 'no'}
    """
    out: dict[str, Any] = {}
    for text in assignments:
        key, sign, value = text.partition("=")
        key = key.strip()
        if not sign or not all(key.split(".")):
            raise ConfigError(f"--set takes KEY=VALUE such as recipe.alpha=10, but got '{text}'.")

        # The same value twice is harmless, as scripts that put a command together do.
        parsed = parse_yaml(value, f"--set {key}")
        if key in out and out[key] != parsed:
            raise ConfigError(f"--set gives {key} twice, as {out[key]!r} and {parsed!r}; keep one.")

        out[key] = parsed
    return out


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings to dotted keys; lists stay values.

    Parameters
    ----------
    values : mapping of str to Any
        nested as deep as it likes
    prefix : str, default ""
        of every key

    Returns
    -------
    dict of str to Any
        an empty mapping stays a value, or its key would be lost

    Examples
    --------
    >>> flatten({"recipe": {"alpha": 10, "layers": [1, 2]}, "seed": 3})
    {'recipe.alpha': 10, 'recipe.layers': [1, 2], 'seed': 3}
    """
    out: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            out.update(flatten(value, f"{name}."))
        else:
            out[name] = value
    return out


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys to nested mappings, the opposite of `flatten`."""
    out: dict[str, Any] = {}
    for key, value in flat.items():
        *path, last = str(key).split(".")
        level = out

        for part in path:
            below = level.setdefault(part, {})
            if not isinstance(below, dict):
                raise ConfigError(f"'{key}' goes into '{part}', which already has the plain value {below!r}.")

            level = below

        level[last] = value
    return out


def _merge(low: Any, high: Any) -> Any:
    """`high` over `low`, mapping by mapping; a mapping of another ``kind`` replaces the whole."""
    if isinstance(low, Mapping) and isinstance(high, Mapping):
        # Settings of one variant mean nothing to another, even where they have the same name.
        if "kind" in high and "kind" in low and high["kind"] != low["kind"]:
            return dict(high)

        merged = dict(low)
        for key, value in high.items():
            if key in low:
                merged[key] = _merge(low[key], value)
            else:
                merged[key] = value
        return merged

    return high


def resolve_layers(model: type[C], layers: Iterable[tuple[str, Mapping[str, Any]]]) -> tuple[C, dict[str, str]]:
    """Build a configuration from layers, later ones winning, and remember where each value came from.

    Parameters
    ----------
    model : type[C]
        the configuration class
    layers : iterable of tuple of (str, mapping of str to Any)
        (origin, values) pairs such as ``("configs/x.yaml", {...})``; keys nested or dotted

    Returns
    -------
    tuple of (C, dict of str to str)
        (config, origins), origins by dotted key; a value no layer names has the origin "default"

    Raises
    ------
    ConfigError
        For unknown keys (with the nearest known one), wrong types and values out of range.
    """
    values = _defaults(model)
    origins: dict[str, str] = {}

    for origin, layer in layers:
        # Key by key, as a layer may hold both "recipe.alpha" and "recipe": {...}.
        nested: dict[str, Any] = {}
        for key, value in layer.items():
            nested = _merge(nested, _nest({key: value}))

        values = _merge(values, nested)
        origins.update(dict.fromkeys(flatten(nested), origin))

    # Origins of what came out, not of what went in: defaults within defaults have one as well.
    config = validate(model, values, "the configuration")
    resolved = flatten(config.model_dump(mode="json"))
    return config, {key: _origin(key, origins) for key in resolved}


def _defaults(model: type[BaseModel]) -> dict[str, Any]:
    """Default values as plain data, so that a layer may change one field of a variant without naming its kind."""
    defaults: dict[str, Any] = {}
    for name, setting in model.model_fields.items():
        if setting.is_required():
            continue

        value = setting.get_default(call_default_factory=True)
        if isinstance(value, BaseModel):
            value = value.model_dump(mode="json")

        defaults[name] = value
    return defaults


def _origin(key: str, origins: Mapping[str, str]) -> str:
    """The layer that named this key, or the nearest key above it."""
    while key:
        if key in origins:
            return origins[key]

        key = key.rpartition(".")[0]
    return "default"


def validate(model: type[C], values: Mapping[str, Any], where: str) -> C:
    """`model` from plain values, with errors a person can act on.

    Parameters
    ----------
    model : type[C]
        the configuration class
    values : mapping of str to Any
        as JSON would hold them
    where : str
        they come from, for the message

    Returns
    -------
    C
        the configuration, with defaults where nothing was said

    Raises
    ------
    ConfigError
        For unknown keys, wrong types, values out of range, or a format of a newer phosphene.
    """
    # First: unknown keys of a newer format would be called typing errors.
    version = values.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise ConfigError(
            f"{where} is of format {version}, but this phosphene reads up to {FORMAT}; it was written by a newer one. "
            "Upgrade phosphene, or remove the keys it does not know."
        )

    # As JSON, by whose rules a strict model still takes a list for a tuple and a text for a path. NaN goes through here, so
    # that the model refuses it by the name of its key.
    try:
        text = json.dumps(values, allow_nan=True)
        return model.model_validate_json(text)
    except (TypeError, ValueError) as error:
        if not isinstance(error, ValidationError):
            raise ConfigError(f"{where} holds something that is not plain data: {error}.") from error

        # Five at most: what comes after is usually the same mistake again.
        sentences = [_explain(model, e, where) for e in error.errors()[:5]]
        raise ConfigError(" ".join(sentences)) from error


def _explain(model: type[BaseModel], error: Any, where: str) -> str:
    """One sentence for one error of pydantic: which key, what was expected, what came."""
    # Tags of discriminated unions appear in `loc` but in no file; keep only what a user could have written.
    key = ".".join(str(p) for p in _user_path(model, error["loc"]))
    came = error.get("input")
    if error["type"] == "extra_forbidden":
        known = _known_keys(model, error["loc"][:-1])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1, cutoff=0.5)

        hint = ""
        if near:
            hint = f" Did you mean '{near[0]}'?"

        return f"{where}: there is no key '{key}'.{hint} Known here: {', '.join(known)}."

    if error["type"] == "missing":
        return f"{where}: '{key}' is required but absent."

    if error["type"] == "union_tag_invalid":
        key = ".".join(p for p in (key, error["ctx"]["discriminator"].strip("'")) if p)
        return f"{where}: '{key}' should be one of {error['ctx']['expected_tags']}, but got {error['ctx']['tag']!r}."

    note = ""
    if isinstance(came, str) and error["type"].startswith(("float", "int", "bool")):
        if _looks_numeric(came):
            note = " (it is a text; write it without quotes)"
        else:
            note = " (it is a text)"

        if error["type"].startswith("bool") and came.lower() in {"yes", "no", "on", "off"}:
            note = " (write true or false)"

    if error["type"] == "value_error" and isinstance(came, dict):
        return f"{where}: in '{key}', {_lower(error['msg'])}."  # a rule about several keys says which

    if not isinstance(came, (str, int, float, bool, type(None))):
        came = type(came).__name__

    return f"{where}: '{key}' {_lower(error['msg'])}, but got {came!r}{note}."


def _user_path(model: Any, loc: tuple[Any, ...]) -> list[Any]:
    """The keys of pydantic's path that stand in a file, without the kinds of variants in between."""
    kept: list[Any] = []
    for part in loc:
        fields = _fields(model)
        if fields is not None and part not in fields and part in _kinds(model):
            model = _kinds(model)[part]
            continue

        kept.append(part)
        if fields and part in fields:
            model = fields[part].annotation
        else:
            model = None  # inside a list or a plain mapping, where every part is a user's own
    return kept


def _kinds(annotation: Any) -> dict[str, Any]:
    """Models of an annotation by the values of their literal ``kind``."""
    kinds = {}
    for model in _models(annotation):
        literal = getattr(model.model_fields.get("kind"), "annotation", None)
        for kind in get_args(literal):
            kinds[kind] = model
    return kinds


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Every model that an annotation names, through unions, lists and ``Annotated``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]

    models = []
    for argument in get_args(annotation):
        models += _models(argument)
    return models


def _fields(annotation: Any) -> dict[str, Any] | None:
    """Settings of all models of an annotation together; None where it names no model."""
    models = _models(annotation)
    if not models:
        return None

    fields: dict[str, Any] = {}
    for model in models:
        fields.update(model.model_fields)
    return fields


def _known_keys(model: Any, loc: tuple[Any, ...]) -> list[str]:
    """Keys that a user could have written at this place."""
    for part in loc:
        fields = _fields(model) or {}
        if part in fields:
            model = fields[part].annotation
        elif part in _kinds(model):
            model = _kinds(model)[part]
    return list(_fields(model) or {})


def _looks_numeric(text: str) -> bool:
    """Whether a text was meant as a number and only has quotes too many."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _lower(message: str) -> str:
    """A message of pydantic as the middle of a sentence."""
    return message.removeprefix("Value error, ").replace("Input should be", "should be")
