"""Hold strings that name modules to the layers of pyproject.toml.

A registry may name a class as ``"phosphene.recipes.linear:Linear"``. Such a string is an import in all but name, and
import-linter does not see it. This check does: ``python tools/strings.py`` fails, with file and line, where a string

- points up the layers, or to a sibling that does not import its siblings;
- names a room that stands in no layer;
- names a module or a name in it (after the colon) that does not exist.

The layers are those of the contract of type ``layers`` that contains the whole package. What must reach a higher room,
such as the lab, is registered as an entry point.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA_SUFFIXES = {".json", ".yaml", ".yml", ".csv", ".toml"}


@dataclass(frozen=True)
class Layers:
    """The layers of one package.

    Attributes
    ----------
    package : str
        Name of the package.
    height : dict[str, int]
        Room and height of its layer; the lowest layer is 0.
    independent : set[int]
        Heights of the layers whose rooms do not import each other.
    """

    package: str
    height: dict[str, int]
    independent: set[int]

    def complaint(self, room: str, named: str) -> str | None:
        """Say what is wrong with a string in one room that names another.

        Parameters
        ----------
        room : str
            Where the string stands.
        named : str
            The room it names.

        Returns
        -------
        str or None
            None when the string points down, or into its own room.
        """
        if room == named:
            return None

        for name in (room, named):
            if name not in self.height:
                return f"{name} stands in no layer of pyproject.toml; add it to the contract"

        if self.height[named] > self.height[room]:
            return f"points up: {room} is below {named}; register it as an entry point, or pass it in from above"

        if self.height[named] == self.height[room] and self.height[room] in self.independent:
            return f"points to a sibling: {room} and {named} do not import each other; bring them together above"

        return None


def read_layers(pyproject: Path) -> Layers:
    """Read the layers from the import-linter contract of a ``pyproject.toml``.

    Parameters
    ----------
    pyproject : Path
        The file.

    Returns
    -------
    Layers
        Of the contract of type ``layers`` whose container is the root package.

    Raises
    ------
    ValueError
        If there is no such contract.
    """
    linter = tomllib.loads(pyproject.read_text(encoding="utf-8"))["tool"]["importlinter"]
    package = linter.get("root_package") or linter["root_packages"][0]

    for contract in linter["contracts"]:
        if contract["type"] != "layers" or package not in contract.get("containers", []):
            continue

        height = {}
        independent = set()

        for place, layer in enumerate(reversed(contract["layers"])):
            # "a | b" are independent of each other, "a : b" are not; "(a)" may be absent.
            rooms = [name.strip(" ()") for name in re.split(r"[|:]", layer)]
            height.update(dict.fromkeys(rooms, place))

            if ":" not in layer:
                independent.add(place)

        return Layers(package, height, independent)

    raise ValueError(f"{pyproject} has no import-linter contract of type layers with {package!r} among its containers.")


def docstring_nodes(tree: ast.Module) -> set[ast.AST]:
    """Return the string nodes that are docstrings, or notes below a constant: they are read by people only."""
    nodes: set[ast.AST] = set()

    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            nodes.add(node.value)

    return nodes


def python_strings(path: Path, pattern: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    """Yield the line and text of each string of a Python file that is the name of a module, or of a name in one."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    for_people = docstring_nodes(tree)

    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or node in for_people:
            continue

        if isinstance(node.value, str) and pattern.fullmatch(node.value):
            yield node.lineno, node.value


def data_strings(path: Path, pattern: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    """Yield the line and text of each name of a module, or of a name in one, that stands between quotes or spaces."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        for word in re.split(r"[\s\"',{}\[\]]+", line):
            if pattern.fullmatch(word):
                yield number, word


def find_module(sources: Path, dotted: str) -> Path | None:
    """Return the file of a module, None where there is none."""
    place = sources.joinpath(*dotted.split("."))

    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file():
            return path

    return None


def top_level_names(path: Path) -> set[str]:
    """Return the names that a module defines or imports at its top level, and all strings of a package's lists."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    names: set[str] = set()

    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and path.name == "__init__.py":
            names.add(node.value)

    stub = path.with_suffix(".pyi")

    if stub.is_file():
        names |= top_level_names(stub)

    return names


def missing(sources: Path, text: str) -> str | None:
    """Say what a string ``module:name`` names that does not exist.

    Parameters
    ----------
    sources : Path
        The folder that holds the package.
    text : str
        The string.

    Returns
    -------
    str or None
        None when module and name exist. Without a colon, a string that names no module is no complaint: it may be the
        name of an entry-point group or of a logger.
    """
    module, colon, name = text.partition(":")

    if not colon:
        return None

    path = find_module(sources, module)

    if path is None:
        return f"names the module {module}, which does not exist"

    first = name.split(".")[0]

    if first not in top_level_names(path):
        return f"names {first}, which {module} does not define"

    return None


def find_complaints(sources: Path, layers: Layers) -> Iterator[str]:
    """Yield ``file:line: string: what is wrong`` for each string that breaks the layers or names nothing.

    Parameters
    ----------
    sources : Path
        The folder that holds the package.
    layers : Layers
        From `read_layers`.

    Yields
    ------
    str
        One complaint.
    """
    pattern = re.compile(rf"{re.escape(layers.package)}(?:\.[A-Za-z_]\w*)+(?::[A-Za-z_][\w.]*)?")
    package = sources / layers.package

    for path in sorted(package.rglob("*")):
        if path.suffix == ".py":
            strings = python_strings(path, pattern)
        elif path.suffix in DATA_SUFFIXES:
            strings = data_strings(path, pattern)
        else:
            continue

        parts = path.relative_to(package).parts
        room = parts[0].removesuffix(path.suffix) if len(parts) == 1 else parts[0]
        is_root = len(parts) == 1 and room.startswith("_")

        for line, text in strings:
            named = re.split(r"[.:]", text)[1]
            complaint = None

            # The package's own __init__ stands above all layers, and may name every room.
            if not is_root and not named.startswith("_"):
                is_room = find_module(sources, f"{layers.package}.{named}") is not None
                complaint = layers.complaint(room, named) if is_room else None

            complaint = complaint or missing(sources, text)

            if complaint:
                yield f"{path}:{line}: {text!r} {complaint}"


def main(arguments: list[str] | None = None) -> int:
    """Check the strings of the sources.

    Parameters
    ----------
    arguments : list[str], optional
        Of the command line.

    Returns
    -------
    int
        The exit status: 1 if there is a complaint.
    """
    parser = argparse.ArgumentParser(description="Hold strings that name modules to the layers of pyproject.toml.")
    parser.add_argument("--pyproject", type=Path, default=ROOT / "pyproject.toml", help="where the layers are written")
    parser.add_argument("--sources", type=Path, default=None, help="the folder that holds the package (src beside it)")
    options = parser.parse_args(arguments)
    sources = options.sources or options.pyproject.parent / "src"
    layers = read_layers(options.pyproject)

    if not (sources / layers.package).is_dir():
        print(f"{sources} holds no package {layers.package}; name its folder with --sources", file=sys.stderr)
        return 2

    complaints = list(find_complaints(sources, layers))

    for complaint in complaints:
        print(complaint)

    if complaints:
        print(f"{len(complaints)} strings break the layers or name nothing")
        return 1

    print(f"strings that name modules keep the {len(set(layers.height.values()))} layers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
