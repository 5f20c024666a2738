"""Docstrings to Markdown. Those of this project are numpydoc, whose paragraphs and literals Markdown reads as they are."""

import inspect
import re
import textwrap

SECTION = re.compile(
    r"^(Parameters|Returns|Yields|Raises|Attributes|Notes|References|Examples|See Also|Warns)\n-+\n", re.MULTILINE
)


def described(path: str, value: object) -> str:
    """One class or function under its own heading, with its public methods below it."""
    lines = [f"### {path.rpartition('.')[2]}", "", _signature(path, value), "", markdown(_own_docstring(value)), ""]
    if inspect.isclass(value):
        for name, member in vars(value).items():
            what = getattr(member, "__func__", getattr(member, "fget", member))
            if not name.startswith("_") and inspect.isfunction(what) and what.__doc__:
                head = f"`{name}`" if isinstance(member, property) else f"`{name}{_arguments(what)}`"
                lines += [f"**{head}**", "", markdown(inspect.getdoc(what) or ""), ""]
    return "\n".join(lines)


def markdown(docstring: str) -> str:
    """The Markdown of a docstring.

    Examples
    --------
    >>> print(markdown("Mean.\\n\\nParameters\\n----------\\nx : ndarray of shape (n,)\\n    volts, any *sign*"))
    Mean.
    <BLANKLINE>
    **Parameters**
    <BLANKLINE>
    - `x` (ndarray of shape (n,)): volts, any \\*sign\\*
    """
    parts = SECTION.split(docstring)
    out = [_prose(parts[0])]
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        listed = title not in ("Notes", "References", "Examples", "See Also")
        out += ["", f"**{title}**", "", _entries(body) if listed else _prose(body)]
    return "\n".join(out).strip()


def _prose(text: str) -> str:
    """Paragraphs; what is indented, a table or a session with Python stays as it is, in a box."""
    out = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        if re.match(r"(?:    |>>>|=+  )", block):
            out.append(f"```{'python' if '>>>' in block else 'text'}\n{textwrap.dedent(block)}\n```")
        elif block.strip():
            first, *rest = block.split("\n")
            indented = rest and all(line.startswith("    ") for line in rest)
            out.append(_escaped(first if indented else block))
            if indented:
                out.append("```text\n" + textwrap.dedent("\n".join(rest)) + "\n```")
    return "\n\n".join(out)


def _entries(body: str) -> str:
    """``name : type`` or a type alone, with an indented description below it, as a list."""
    out: list[str] = []
    begins = False

    for line in body.strip("\n").split("\n"):
        if line.startswith((" ", "\t")) or not line.strip():
            if not out:
                out.append("-")

            joint = ": " if begins and line.strip() else " "
            out[-1] = f"{out[-1]}{joint}{_escaped(line.strip())}".rstrip()
            begins = False
            continue

        name, colon, kind = line.partition(" : ")
        if colon:
            out.append(f"- `{name}` ({_escaped(kind)})")
        else:
            out.append(f"- {_escaped(line)}")

        begins = True

    return "\n".join(out)


def _escaped(text: str) -> str:
    """Text whose literals stay, and in which nothing else is markup."""
    text = re.sub(r":\w+:(?=`)", "", text)
    parts = re.split(r"(``.+?``|`.+?`)", text, flags=re.DOTALL)
    return "".join(p if p.startswith("`") else re.sub(r"([*_<\[\]{}#|$~^])", r"\\\1", p) for p in parts)


def _own_docstring(value: object) -> str:
    text = inspect.getdoc(value) or ""
    return "" if inspect.isclass(value) and value.__doc__ is None else text


def _signature(path: str, value: object) -> str:
    return f"```python\n{path}{_arguments(value)}\n```"


def _arguments(value: object) -> str:
    try:
        found = inspect.signature(value)
    except (ValueError, TypeError):
        return ""
    bare = [
        p.replace(annotation=inspect.Parameter.empty)
        for p in found.parameters.values()
        if p.name not in ("self", "cls")
    ]
    text = str(inspect.Signature(bare))
    return text if len(text) < 300 and " at 0x" not in text else "(...)"
