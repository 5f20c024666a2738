"""Measure the habits of the source tree: how it reads, beside four projects that many people read with pleasure.

``make house`` prints the table; ``python tools/house.py --json PATH ...`` measures other trees by the same rules.

The anchors were measured by this script on the published wheels, tests left out; in brackets the figures of an earlier
count. torchmetrics writes types outside docstrings, so it has no share of typed entries. Definitions:

- a code line carries a token that is neither a comment nor part of a docstring;
- a comment is any comment token, at the end of a line or on a line of its own;
- blank lines inside functions are counted from the first statement after the docstring, per 100 code lines there;
- tuple assignments, comprehensions (generator expressions too) and conditional expressions are counted per 1,000 lines
  that are not blank;
- of the public functions and methods that have a docstring and two or more parameters besides ``self``, the share whose
  docstring has a Parameters section (or ``Args:``, which torchmetrics uses);
- a raise shows a value when its message is formatted: an f-string with a field, ``%`` or ``.format``;
- a parameter entry has a type when what follows ``name :`` is built from names of types.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import re
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "src" / "phosphene"

PROJECTS = ("himalaya 0.4.11", "torchmetrics 1.9.0", "nilearn 0.14.1", "braindecode 1.8.1")

# Row of the table: what this script finds in the four projects, in the order of PROJECTS.
ANCHORS: dict[str, tuple[float | None, ...]] = {
    "comments": (7.8, 17.9, 7.8, 11.9),
    "blank_lines": (16.9, 9.8, 14.6, 9.2),
    "tuple_assignments": (1.3, 0.8, 0.6, 0.7),
    "comprehensions": (2.9, 4.3, 6.7, 6.9),
    "conditional_expressions": (5.1, 5.3, 3.2, 4.0),
    "parameters_sections": (67.7, 76.1, 82.5, 80.2),
    "docstring_share": (38.5, 47.5, 36.5, 34.1),
    "raises_with_value": (39.8, 73.4, 52.5, 58.7),
    "typed_parameters": (87.4, None, 74.1, 96.6),
    "class_names_twice": (0, 1, 1, 22),
    "file_stems_twice": (3, 129, 7, 2),
    "function_names_twice": (20, 1, 34, 8),
    "private_imports": (17, 1428, 54, 42),
    "imports_in_functions": (20, 53, 106, 31),
    "import_circles": (1, 1, 2, 5),
}

# The same projects in an earlier count, whose rules were not kept. The two agree but for sections of parameters.
EARLIER_ANCHORS = {
    "comments": (7.8, 17.9, 7.6, 12.1),
    "blank_lines": (17.0, 9.9, 14.5, 9.6),
    "tuple_assignments": (1.3, 0.9, 0.7, 0.8),
    "comprehensions": (3, 5, 7, 7),
    "conditional_expressions": (5, 6, 3, 4),
    "parameters_sections": (53, 75, 72, 62),
    "docstring_share": (39, 47, 37, 34),
    "raises_with_value": (40, 73, 52, 57),
}

# The same row before the house was rebuilt, in phosphene: what this script finds.
BEFORE: dict[str, float] = {
    "comments": 2.3,
    "blank_lines": 1.7,
    "tuple_assignments": 16.2,
    "comprehensions": 37.9,
    "conditional_expressions": 26.1,
    "parameters_sections": 38.7,
    "docstring_share": 22.1,
    "raises_with_value": 87.3,
    "typed_parameters": 0.4,
    "class_names_twice": 28,
    "file_stems_twice": 21,
    "function_names_twice": 41,
    "private_imports": 16,
    "imports_in_functions": 344,
    "import_circles": 10,
    "files": 350,
    "lines": 64910,
}

ROWS = {
    "comments": "comments per 100 code lines",
    "blank_lines": "blank lines per 100 code lines inside functions",
    "tuple_assignments": "tuple assignments `a, b = x, y` per 1,000 lines",
    "comprehensions": "comprehensions per 1,000 lines",
    "conditional_expressions": "conditional expressions per 1,000 lines",
    "parameters_sections": "documented functions with 2+ parameters: % with a Parameters section",
    "docstring_share": "docstring share of lines, %",
    "raises_with_value": "raises that show a value, %",
    "typed_parameters": "parameter entries `name : type` that name a type, %",
    "class_names_twice": "class names used twice or more",
    "file_stems_twice": "file stems used twice or more",
    "function_names_twice": "public function names defined twice or more at module level",
    "private_imports": "imports of an underscored name of another file",
    "imports_in_functions": "imports inside functions",
    "import_circles": "import circles (groups of files that import each other)",
    "files": "files",
    "lines": "lines",
}

COUNTS = {
    "class_names_twice",
    "file_stems_twice",
    "function_names_twice",
    "private_imports",
    "imports_in_functions",
    "import_circles",
    "files",
    "lines",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
LAYOUT_TOKENS = {
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.COMMENT,
}


@dataclass(frozen=True)
class Source:
    """One file, read and parsed.

    Attributes
    ----------
    path : Path
        Where it is.
    module : str
        Its dotted name, from the folder that was given.
    lines : list[str]
        Its text, line by line.
    tree : ast.Module
        Its syntax tree.
    """

    path: Path
    module: str
    lines: list[str]
    tree: ast.Module

    @property
    def is_package(self) -> bool:
        """Whether this is the ``__init__.py`` of a folder."""
        return self.path.name == "__init__.py"


def read_sources(root: Path) -> list[Source]:
    """Read every Python file below a folder, tests left out.

    Parameters
    ----------
    root : Path
        A folder, whose name begins the dotted names, or one file.

    Returns
    -------
    list[Source]
        In the order of their paths.
    """
    paths = [root] if root.is_file() else sorted(root.rglob("*.py"))
    sources = []

    for path in paths:
        parts = path.relative_to(root.parent).with_suffix("").parts
        is_test = any(part in {"test", "tests", "_testing"} or part.startswith("test_") for part in parts[1:])

        if is_test:
            continue

        module = ".".join(parts).removesuffix(".__init__")
        text = path.read_text(encoding="utf-8")
        sources.append(Source(path, module, text.splitlines(), ast.parse(text, str(path))))

    return sources


# How a file reads


def last_line(node: ast.stmt) -> int:
    """Return the number of the last line of a statement."""
    return node.end_lineno or node.lineno


def docstring_lines(tree: ast.Module) -> set[int]:
    """Return the numbers of the lines that docstrings take."""
    numbers: set[int] = set()

    for node in ast.walk(tree):
        if isinstance(node, Documented) and ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            numbers.update(range(first.lineno, last_line(first) + 1))

    return numbers


def function_lines(tree: ast.Module) -> set[int]:
    """Return the numbers of the lines inside functions, from the first statement after the docstring."""
    numbers: set[int] = set()

    for node in ast.walk(tree):
        if isinstance(node, Function):
            has_docstring = ast.get_docstring(node, clean=False) is not None
            body = node.body[1:] if has_docstring else node.body

            if body:
                numbers.update(range(body[0].lineno, last_line(node) + 1))

    return numbers


def count_lines(source: Source) -> Counter[str]:
    """Count lines of each kind in one file: code, comments, docstrings, blank lines in functions."""
    documented = docstring_lines(source.tree)
    inside = function_lines(source.tree)
    text = "\n".join(source.lines) + "\n"
    code: set[int] = set()
    count: Counter[str] = Counter(files=1, lines=len(source.lines), docstring=len(documented))

    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            count["comments"] += 1
        elif token.type not in LAYOUT_TOKENS:
            code.update(range(token.start[0], token.end[0] + 1))

    code -= documented
    blank = {number for number, line in enumerate(source.lines, 1) if not line.strip()}

    count["code"] = len(code)
    count["filled"] = len(source.lines) - len(blank)
    count["code_in_functions"] = len(code & inside)
    count["blank_in_functions"] = len((blank - documented) & inside)
    return count


def shows_value(raised: ast.expr) -> bool:
    """Say whether the message of an exception is formatted with a value."""
    for node in ast.walk(raised):
        if isinstance(node, ast.FormattedValue):
            return True
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
            return True
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
            return True

    return False


def count_expressions(tree: ast.Module) -> Counter[str]:
    """Count the expressions that ask for a second look, and the raises that show a value."""
    count: Counter[str] = Counter()

    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            pairs = len(node.targets) == 1 and isinstance(node.targets[0], ast.Tuple)
            count["tuple_assignments"] += pairs and isinstance(node.value, ast.Tuple)
        elif isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            count["comprehensions"] += 1
        elif isinstance(node, ast.IfExp):
            count["conditional_expressions"] += 1
        elif isinstance(node, ast.Raise) and node.exc is not None:
            count["raises"] += 1
            count["raises_with_value"] += shows_value(node.exc)

    return count


# Docstrings


def parameter_names(node: Function) -> list[str]:
    """Return the names of the parameters of a function, without ``self``, ``cls``, ``*args`` and ``**kwargs``."""
    arguments = node.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]

    if names and names[0] in {"self", "cls"}:
        return names[1:]

    return names


SECTION = re.compile(r"^(Parameters|Other Parameters|Attributes)\n-{3,}\n", re.MULTILINE)
HEADING = re.compile(r"^\S.*\n-{3,}$", re.MULTILINE)
ENTRY = re.compile(r"^(?P<names>[*\w`][\w*`, ]*?)\s*:\s+(?P<type>\S.*)$")

TYPE_WORD = re.compile(
    r"int(eger)?s?|floats?|str|strings?|bool(ean)?s?|bytes|complex|lists?|tuples?|dicts?|sets?|frozenset|object|type|range"
    r"|slice|None|True|False|callables?|function|arrays?|ndarrays?|array[-_]like|scalar|number|tensors?|generator|iterator"
    r"|iterable|mapping|sequences?|collection|estimator|paths?|path-like|file-like|dtype|module|instance|self"
    r"|positive|non-negative|u?int(?:8|16|32|64)|float(?:16|32|64)|complex(?:64|128)"
)
LINKING_WORDS = {"of", "or", "and", "to", "...", "->"}
TYPE_NAME = re.compile(r"^(?:[A-Za-z_]\w*\.)+[A-Za-z_]\w*$|^[A-Z]\w*$")


def names_type(text: str) -> bool:
    """Say whether the text after ``name :`` is built from names of types.

    Parameters
    ----------
    text : str
        Such as ``int``, ``ndarray of shape (n, p)``, ``{"loo", "gcv"}, optional`` or ``str or None, default None``.

    Returns
    -------
    bool
        False for a description, which has words that name no type.
    """
    text = re.sub(r":?(?:\w+:)*(?:class|obj|func):|`|~", "", text)
    text = re.split(r",?\s*\(?\b(?:default|optional)\b", text)[0]
    text = re.sub(r"\{[^{}:]*\}", " str ", text)
    text = re.sub(r"\{([^{}:]*):([^{}]*)\}", r" \1 \2 ", text)  # dict of {str: int}
    text = re.sub(r"\[.*\]", " ", text)
    text = re.sub(r"(?:of )?shape \([^)]*\)|(?<=\w) \([^()]*\)$", " ", text)
    words = [word for word in re.split(r"[\s,|]+", text) if word]

    if not words or words[0] in LINKING_WORDS:
        return False

    for word in words:
        is_known = bool(TYPE_WORD.fullmatch(word)) or word in LINKING_WORDS

        if not is_known and not TYPE_NAME.match(word):
            return False

    return True


def parameter_types(docstring: str) -> Iterator[str]:
    """Yield what stands after ``name :`` in the sections of parameters and attributes of a docstring.

    Parameters
    ----------
    docstring : str
        Cleaned of its indentation.

    Yields
    ------
    str
        The text between the colon and the end of the line.
    """
    for section in SECTION.finditer(docstring):
        rest = docstring[section.end() :]
        heading = HEADING.search(rest)
        body = rest[: heading.start()] if heading else rest

        for line in body.splitlines():
            entry = ENTRY.match(line)

            if entry:
                yield entry["type"]


def count_docstrings(tree: ast.Module) -> Counter[str]:
    """Count public functions with two or more parameters and a docstring, and the entries that name a type."""
    count: Counter[str] = Counter()

    for node in ast.walk(tree):
        if not isinstance(node, Documented):
            continue

        docstring = ast.get_docstring(node)

        if docstring is None:
            continue

        for text in parameter_types(docstring):
            count["parameter_entries"] += 1
            count["typed_parameters"] += names_type(text)

        if isinstance(node, Function) and not node.name.startswith("_") and len(parameter_names(node)) >= 2:
            has_section = bool(re.search(r"^\s*(Parameters\n\s*-{3,}|Args:|Arguments:)", docstring, re.MULTILINE))
            count["functions_with_parameters"] += 1
            count["parameters_sections"] += has_section

    return count


# Names and imports


def resolve(source: Source, node: ast.ImportFrom) -> str:
    """Return the absolute dotted name of the module that a ``from ... import`` names."""
    if not node.level:
        return node.module or ""

    parts = source.module.split(".")
    kept = len(parts) - node.level + source.is_package
    return ".".join([*parts[:kept], *([node.module] if node.module else [])])


def imported_modules(source: Source, modules: set[str]) -> dict[str, int]:
    """Find the files of the same tree that a file imports.

    Parameters
    ----------
    source : Source
        The file.
    modules : set of str
        The dotted names of all files of the tree.

    Returns
    -------
    dict
        Dotted name of each imported file, and the line of its first import.
    """
    imported: dict[str, int] = {}

    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = resolve(source, node)
            names = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules else base for alias in node.names]
        else:
            continue

        for name in names:
            if name in modules and name != source.module:
                imported.setdefault(name, node.lineno)

    return imported


def find_circles(sources: Iterable[Source]) -> list[list[str]]:
    """Find groups of files that import each other, directly or through others, inside functions too.

    Parameters
    ----------
    sources : iterable of Source
        The files of one tree.

    Returns
    -------
    list[list[str]]
        Dotted names of each group, in alphabetical order.
    """
    sources = list(sources)
    modules = {source.module for source in sources}
    graph = {source.module: list(imported_modules(source, modules)) for source in sources}

    # Tarjan's strongly connected components. A chain of imports is far shorter than Python's limit of recursion.
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    circles: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = len(order)
        lowest[module] = order[module]
        stack.append(module)

        for imported in graph[module]:
            if imported not in order:
                visit(imported)
                lowest[module] = min(lowest[module], lowest[imported])
            elif imported in stack:
                lowest[module] = min(lowest[module], order[imported])

        if lowest[module] == order[module]:
            start = stack.index(module)
            group = stack[start:]
            del stack[start:]

            if len(group) > 1:
                circles.append(sorted(group))

    for module in graph:
        if module not in order:
            visit(module)

    return sorted(circles)


def find_imports_in_functions(sources: Iterable[Source]) -> list[str]:
    """Return ``file:line`` of every import that stands inside a function."""
    places = []

    for source in sources:
        lines = set()

        for node in ast.walk(source.tree):
            if isinstance(node, Function):
                lines.update(inner.lineno for inner in ast.walk(node) if isinstance(inner, ast.Import | ast.ImportFrom))

        places.extend(f"{source.path}:{line}" for line in sorted(lines))

    return places


def find_private_imports(sources: Iterable[Source]) -> list[str]:
    """Return every import of an underscored name of another file of the tree, as ``file:line module.name``."""
    sources = list(sources)
    package = sources[0].module.split(".")[0] if sources else ""
    places = []

    for source in sources:
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.ImportFrom):
                continue

            module = resolve(source, node)

            if module.split(".")[0] != package:
                continue

            for alias in node.names:
                if alias.name.startswith("_") and not alias.name.startswith("__"):
                    places.append(f"{source.path}:{node.lineno} {module}.{alias.name}")

    return places


def find_repeated_names(sources: Iterable[Source]) -> dict[str, dict[str, list[str]]]:
    """Find the names that are used twice or more in a tree.

    Parameters
    ----------
    sources : iterable of Source
        The files of one tree.

    Returns
    -------
    dict
        For class names, file stems and public functions at module level: each repeated name with its places.
    """
    classes = defaultdict(list)
    stems = defaultdict(list)
    functions = defaultdict(list)

    for source in sources:
        if source.path.stem not in {"__init__", "__main__"}:
            stems[source.path.stem].append(str(source.path))

        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(f"{source.path}:{node.lineno}")

        for node in source.tree.body:
            if isinstance(node, Function) and not node.name.startswith("_"):
                functions[node.name].append(f"{source.path}:{node.lineno}")

    repeated = {}

    for kind, places in (
        ("class_names_twice", classes),
        ("file_stems_twice", stems),
        ("function_names_twice", functions),
    ):
        repeated[kind] = {name: places[name] for name in sorted(places) if len(places[name]) > 1}

    return repeated


# The table


def share(part: float, whole: float, of: float = 100.0) -> float:
    """Return how many parts there are in each hundred (or ``of``) of the whole, 0 for an empty whole."""
    return round(of * part / whole, 1) if whole else 0.0


def measure(sources: list[Source]) -> dict[str, float]:
    """Measure every row of the table.

    Parameters
    ----------
    sources : list[Source]
        The files of one tree.

    Returns
    -------
    dict[str, float]
        A key of `ROWS` and its figure.
    """
    count: Counter[str] = Counter()

    for source in sources:
        count += count_lines(source)
        count += count_expressions(source.tree)
        count += count_docstrings(source.tree)

    repeated = find_repeated_names(sources)

    return {
        "comments": share(count["comments"], count["code"]),
        "blank_lines": share(count["blank_in_functions"], count["code_in_functions"]),
        "tuple_assignments": share(count["tuple_assignments"], count["filled"], 1000),
        "comprehensions": share(count["comprehensions"], count["filled"], 1000),
        "conditional_expressions": share(count["conditional_expressions"], count["filled"], 1000),
        "parameters_sections": share(count["parameters_sections"], count["functions_with_parameters"]),
        "docstring_share": share(count["docstring"], count["lines"]),
        "raises_with_value": share(count["raises_with_value"], count["raises"]),
        "typed_parameters": share(count["typed_parameters"], count["parameter_entries"]),
        "class_names_twice": len(repeated["class_names_twice"]),
        "file_stems_twice": len(repeated["file_stems_twice"]),
        "function_names_twice": len(repeated["function_names_twice"]),
        "private_imports": len(find_private_imports(sources)),
        "imports_in_functions": len(find_imports_in_functions(sources)),
        "import_circles": len(find_circles(sources)),
        "files": count["files"],
        "lines": count["lines"],
    }


def measure_rooms(sources: list[Source]) -> dict[str, tuple[int, int]]:
    """Return the files and lines of each room: each folder or file just below the root of the tree."""
    rooms: dict[str, tuple[int, int]] = {}

    for source in sources:
        parts = source.module.split(".")
        room = parts[1] if len(parts) > 1 else "__init__"
        files, lines = rooms.get(room, (0, 0))
        rooms[room] = (files + 1, lines + len(source.lines))

    return dict(sorted(rooms.items()))


def show(row: str, figure: float | None) -> str:
    """Write a figure as the table has it: whole numbers for counts, one digit after the point for shares."""
    if figure is None:
        return "-"
    if row in COUNTS:
        return f"{figure:,.0f}"

    return f"{figure:.1f}"


def write_table(figures: dict[str, float], rooms: dict[str, tuple[int, int]], name: str) -> str:
    """Write the table of one tree, its rooms below it.

    Parameters
    ----------
    figures : dict[str, float]
        From `measure`.
    rooms : dict[str, tuple[int, int]]
        From `measure_rooms`.
    name : str
        The heading of the tree's own column.

    Returns
    -------
    str
        Markdown.
    """
    heading = ["tests left out", name, f"{SOURCES.name} before", *PROJECTS]
    rows = [heading, ["---", *["---:"] * (len(heading) - 1)]]

    for row, title in ROWS.items():
        cells = [show(row, figures[row]), show(row, BEFORE.get(row))]
        anchors = ANCHORS.get(row, (None,) * len(PROJECTS))

        for place, anchor in enumerate(anchors):
            earlier = f" ({EARLIER_ANCHORS[row][place]:g})" if row in EARLIER_ANCHORS else ""
            cells.append(show(row, anchor) + earlier)

        rows.append([title, *cells])

    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    lines += ["", "| room | files | lines |", "| --- | ---: | ---: |"]
    lines += [f"| {room} | {files} | {length:,} |" for room, (files, length) in rooms.items()]
    return "\n".join(lines)


def find_places(sources: list[Source]) -> dict[str, list[str]]:
    """Find where the counted names, imports and circles are, for the one who mends them.

    Parameters
    ----------
    sources : list[Source]
        The files of one tree.

    Returns
    -------
    dict[str, list[str]]
        A key of `ROWS` and one line for each place.
    """
    places = {}

    for row, names in find_repeated_names(sources).items():
        places[row] = [f"{name}: {', '.join(where)}" for name, where in names.items()]

    places["private_imports"] = find_private_imports(sources)
    places["import_circles"] = [" <-> ".join(circle) for circle in find_circles(sources)]
    places["imports_in_functions"] = find_imports_in_functions(sources)
    return places


def write_places(sources: list[Source]) -> str:
    """Write the places of each row that has them."""
    lines = []

    for row, places in find_places(sources).items():
        lines += ["", ROWS[row], *[f"  {place}" for place in places]]

    return "\n".join(lines)


def read_limit(text: str) -> tuple[str, float]:
    """Read ``ROW=NUMBER`` of the command line.

    Parameters
    ----------
    text : str
        Such as ``class_names_twice=0``.

    Returns
    -------
    row : str
        A key of `ROWS`.
    limit : float
        The highest figure that passes.

    Raises
    ------
    argparse.ArgumentTypeError
        For a row that the table does not have, or no number.
    """
    row, _, number = text.partition("=")

    if row not in ROWS:
        raise argparse.ArgumentTypeError(f"the table has no row {row!r}; its rows are {', '.join(ROWS)}")

    try:
        return row, float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} should be ROW=NUMBER, such as {row}=0") from None


def write_exceeded(figures: dict[str, float], sources: list[Source], limits: dict[str, float]) -> list[str]:
    """Write a line for each figure above its limit, and below it the places.

    Parameters
    ----------
    figures : dict[str, float]
        From `measure`.
    sources : list[Source]
        The files of the tree.
    limits : dict[str, float]
        A key of `ROWS` and the highest figure that passes.

    Returns
    -------
    list[str]
        Nothing when all figures pass.
    """
    exceeded = [row for row, limit in limits.items() if figures[row] > limit]
    places = find_places(sources) if exceeded else {}
    lines = []

    for row in exceeded:
        lines.append(f"{ROWS[row]}: {show(row, figures[row])}, at most {show(row, limits[row])} are allowed")
        lines += [f"  {place}" for place in places.get(row, [])]

    return lines


def main(arguments: list[str] | None = None) -> int:
    """Measure the trees named on the command line and print what was found.

    Parameters
    ----------
    arguments : list[str], optional
        Of the command line.

    Returns
    -------
    int
        The exit status: 0, 1 for a figure above its limit, 2 for a path that is not there.
    """
    parser = argparse.ArgumentParser(description="Measure how source trees read.")
    parser.add_argument("paths", nargs="*", type=Path, default=[SOURCES], help="folders or files (the sources)")
    parser.add_argument("--json", action="store_true", help="figures and rooms as JSON")
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="ROW=NUMBER",
        type=read_limit,
        help="instead of the table, fail where the figure of a row is above a number; may be given several times",
    )
    parser.add_argument("--places", action="store_true", help="list the repeated names, circles and imports as well")
    options = parser.parse_args(arguments)
    results = {}
    exceeded: list[str] = []

    for path in options.paths:
        if not path.exists():
            print(f"{path} does not exist; name a folder of Python files", file=sys.stderr)
            return 2

        sources = read_sources(path.resolve())
        figures = measure(sources)
        rooms = measure_rooms(sources)

        if options.limit:
            exceeded += write_exceeded(figures, sources, dict(options.limit))
            continue

        if options.json:
            named = {room: {"files": files, "lines": lines} for room, (files, lines) in rooms.items()}
            results[str(path)] = {"figures": figures, "rooms": named}
            continue

        print(write_table(figures, rooms, path.resolve().name))

        if options.places:
            print(write_places(sources))

    if options.limit:
        print("\n".join(exceeded) or "no figure is above its limit")
        return int(bool(exceeded))

    if options.json:
        print(json.dumps(results, indent=2))

    return 0


if __name__ == "__main__":
    sys.exit(main())
