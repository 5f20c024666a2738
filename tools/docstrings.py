"""Hold the docstrings of public names to numpydoc.

Public is what the ``__all__`` of phosphene, of its folders and of the files beside them lists, and the public methods
and properties of listed classes. ``python tools/docstrings.py`` fails, with file, line and code, where a docstring breaks
one of the checks of ``[tool.numpydoc_validation]`` in pyproject.toml, and besides

- ALL1: ``__all__`` lists a name that is not there;
- PT01: what stands after ``name :`` in a section of parameters or attributes names no type (see `house.names_type`).

Three exceptions keep docstrings short where nothing is lost. A function with at most one parameter may say all in one
line, without sections (PR01, RT01, YD01). Fields of data classes, named tuples and pydantic models may be described under
Attributes instead of Parameters, and pydantic fields by their own ``description``; a literal of one value explains
itself (PR01). A method without a docstring
inherits that of the class above.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
import pkgutil
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_origin

from numpydoc.docscrape import get_doc_object
from numpydoc.validate import Validator, validate

import house

ROOT = Path(__file__).resolve().parents[1]
SECTIONS_OF_FUNCTIONS = {"PR01", "RT01", "YD01"}


def read_checks(pyproject: Path) -> set[str]:
    """Read the codes of the checks from ``[tool.numpydoc_validation]``.

    Parameters
    ----------
    pyproject : Path
        The file.

    Returns
    -------
    set[str]
        Codes, such as ``PR01``.
    """
    settings = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    return set(settings["tool"]["numpydoc_validation"]["checks"])


def public_modules(package: str) -> Iterator[ModuleType]:
    """Yield a package, the packages below it, and the files just below it that have an ``__all__``.

    Parameters
    ----------
    package : str
        Its name.

    Yields
    ------
    ModuleType
        Imported.
    """
    root = importlib.import_module(package)
    yield root

    for found in pkgutil.walk_packages(root.__path__, f"{package}."):
        is_just_below = found.name.count(".") == package.count(".") + 1
        is_private = any(part.startswith("_") for part in found.name.split("."))

        if is_private or not (found.ispkg or is_just_below):
            continue

        module = importlib.import_module(found.name)

        if found.ispkg or hasattr(module, "__all__"):
            yield module


def is_documented_kind(thing: Any) -> bool:
    """Say whether a thing is a class or a function; constants have no docstring of their own."""
    return inspect.isclass(thing) or inspect.isroutine(thing) or hasattr(thing, "__wrapped__")


def has_inherited_docstring(owner: type, name: str) -> bool:
    """Say whether a method of a class has no docstring but one to inherit."""
    if vars(owner)[name].__doc__:
        return False

    return any(getattr(vars(above).get(name), "__doc__", None) for above in owner.__mro__[1:])


def public_names(package: str, complaints: list[str]) -> dict[str, Any]:
    """Collect the public classes, functions, methods and properties of a package.

    Parameters
    ----------
    package : str
        Its name.
    complaints : list[str]
        Names of an ``__all__`` that are not there are added here.

    Returns
    -------
    dict
        The dotted name by which each is defined, and the thing itself. A thing listed twice appears once.
    """
    public: dict[str, Any] = {}

    for module in public_modules(package):
        for name in getattr(module, "__all__", ()):
            try:
                thing = getattr(module, name)
            except (AttributeError, ImportError) as error:
                complaints.append(
                    f"{module.__file__}:1: ALL1 {module.__name__}.{name} is listed but not there: {error}"
                )
                continue

            home = getattr(thing, "__module__", None) or ""
            is_ours = home == package or home.startswith(f"{package}.")

            if is_ours and is_documented_kind(thing):
                public[f"{home}.{thing.__qualname__}"] = thing

    for name, thing in list(public.items()):
        if inspect.isclass(thing):
            for member, value in vars(thing).items():
                is_function = inspect.isfunction(getattr(value, "__func__", value)) or isinstance(value, property)

                if is_function and not member.startswith("_") and not has_inherited_docstring(thing, member):
                    public[f"{name}.{member}"] = value

    return public


def is_single_literal(annotation: Any) -> bool:
    """Say whether a type allows one value only, such as the ``kind`` that tells configurations apart."""
    return get_origin(annotation) is Literal and len(get_args(annotation)) == 1


def described_fields(thing: Any, doc: Validator) -> set[str]:
    """Return the fields of a class that are described elsewhere than under Parameters.

    Parameters
    ----------
    thing : object
        A class, or anything else, which has no fields.
    doc : Validator
        Its docstring.

    Returns
    -------
    set[str]
        Names of fields of a data class, named tuple or pydantic model that stand under Attributes or have a
        ``description``.
    """
    models = getattr(thing, "model_fields", {})
    has_fields = dataclasses.is_dataclass(thing) or hasattr(thing, "_fields") or bool(models)

    if not inspect.isclass(thing) or not has_fields:
        return set()

    described = {name for name, field in models.items() if field.description or is_single_literal(field.annotation)}

    for attribute in doc.doc["Attributes"]:
        described.update(name.strip() for name in attribute.name.split(","))

    return described


def complaints_of(name: str, thing: Any, checks: set[str]) -> Iterator[tuple[str, str]]:
    """Yield code and message of each check that the docstring of one public name breaks.

    Parameters
    ----------
    name : str
        Its dotted name.
    thing : object
        The class, function, method or property.
    checks : set[str]
        Codes of numpydoc.

    Yields
    ------
    tuple[str, str]
        Code and message.
    """
    doc = Validator(get_doc_object(Validator._load_obj(name)))
    is_one_line = "\n" not in doc.clean_doc.strip()
    n_parameters = len(doc.signature_parameters)
    # numpydoc takes a bound class method for something else than a function.
    is_function = doc.is_function_or_method or inspect.isroutine(thing)
    may_be_short = is_function and is_one_line and n_parameters <= 1
    undescribed = set(doc.signature_parameters) - set(doc.doc_all_parameters) - described_fields(thing, doc)

    if getattr(thing, "_is_protocol", False):  # nobody calls the ``__init__`` that typing gives a protocol
        undescribed -= {"*args", "**kwargs", "args", "kwargs"}

    for code, message in validate(name)["errors"]:
        is_short = may_be_short and code in SECTIONS_OF_FUNCTIONS
        is_described = code == "PR01" and not undescribed

        if code == "PR01":
            message = f"Parameters {', '.join(sorted(undescribed))} not documented"

        if code in checks and not is_short and not is_described:
            yield code, message

    for text in house.parameter_types(inspect.cleandoc(doc.raw_doc)):
        if not house.names_type(text):
            yield "PT01", f"'{text}' names no type; write the type there and the description below it"


def place_of(thing: Any) -> str:
    """Return ``file:line`` of where a thing is defined."""
    thing = thing.fget if isinstance(thing, property) else getattr(thing, "__func__", thing)
    thing = inspect.unwrap(thing)
    return f"{inspect.getsourcefile(thing)}:{inspect.getsourcelines(thing)[1]}"


def main(arguments: list[str] | None = None) -> int:
    """Check the public names of a package.

    Parameters
    ----------
    arguments : list[str], optional
        Of the command line.

    Returns
    -------
    int
        The exit status: 1 if there is a complaint.
    """
    parser = argparse.ArgumentParser(description="Hold the docstrings of public names to numpydoc.")
    parser.add_argument("packages", nargs="*", default=["phosphene"], help="dotted names, such as phosphene.align")
    options = parser.parse_args(arguments)
    checks = read_checks(ROOT / "pyproject.toml")
    complaints: list[str] = []
    codes: Counter[str] = Counter()
    n_names = 0

    for package in options.packages:
        public = public_names(package, complaints)
        n_names += len(public)

        for name, thing in public.items():
            for code, message in complaints_of(name, thing, checks):
                codes[code] += 1
                complaints.append(f"{place_of(thing)}: {code} {name}: {message}")

    for complaint in sorted(complaints):
        print(complaint)

    if complaints:
        most_frequent = ", ".join(f"{code} {times}" for code, times in codes.most_common())
        print(f"{len(complaints)} complaints about {n_names} public names ({most_frequent})")
        return 1

    print(f"the docstrings of {n_names} public names keep to numpydoc")
    return 0


if __name__ == "__main__":
    sys.exit(main())
