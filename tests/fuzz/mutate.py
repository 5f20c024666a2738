"""Damage: from the bytes of a valid file to those of one that is not, blindly and by what its format is."""

from __future__ import annotations

import copy
import gzip
import io
import json
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

Rng = np.random.Generator
CANARY = "phosphene_fuzz_canary"
_CALLS = (b"cposix\nsystem\n(S'touch %s'\ntR" % CANARY.encode(), b"cbuiltins\neval\n(S'1/0'\ntR", b"cos\nabort\n(tR")
_NUMBERS = [
    "-1", "0", "1", "1e308", "-1e308", "1e400", "nan", "inf", "-inf", "99999999999999999999", "2147483648", "-2147483649",
    "0x10", "1_000", "1e-320", "18446744073709551616", "0.1", "1e9", "65536",
]  # fmt: skip
_TEXTS = (
    "",
    "n/a",
    "nan",
    "=1+1",
    "../../x",
    "é",
    "\x00",
    '"',
    "a" * 5000,
    "[",
    "{}",
    "null",
    "true",
    "\t",
    ",",
    "\u2028",
)
_NODES = (
    None, True, False, 0, -1, 1, 3, 10**30, -(10**30), 1e308, float("nan"), float("inf"), "", "x", "../x", "\x00", [], {},
    [[]], [1, 2], [None], {"x": 1}, ["a", "b"], 10**9, 2**31, 2**63, "1", 0.5,
)  # fmt: skip
_WEB_PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"


def mutated(data: bytes, name: str, rng: Rng) -> bytes:
    """Other bytes than `data`, by one to three kinds of damage; `name` says what the file is."""
    out = data
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        fitting = _fitting(name, out)
        damage = fitting[int(rng.integers(len(fitting)))] if fitting and rng.random() < 0.6 else _blind(rng)
        try:
            out = damage(out, rng)
        except Exception:  # damaged before, so that its format's own damage finds nothing to work on
            out = _blind(rng)(out, rng)
    return out


# -- without knowing the format ----------------------------------------------------------------------------------------


def _at(data: bytes, rng: Rng) -> int:
    """A place, half of the time near the beginning, where headers are."""
    top = len(data) if rng.random() < 0.5 else min(len(data), int(rng.choice([64, 512, 2048])))
    return int(rng.integers(top)) if top else 0


def flip(data: bytes, rng: Rng) -> bytes:
    out = bytearray(data)
    for _ in range(int(rng.choice([1, 1, 2, 8]))):
        if out:
            out[_at(data, rng)] ^= 1 << int(rng.integers(8))
    return bytes(out)


def randomise(data: bytes, rng: Rng) -> bytes:
    at, n = _at(data, rng), int(rng.choice([1, 2, 4, 16, 256]))
    return data[:at] + rng.bytes(min(n, len(data) - at)) + data[at + n :]


def cut(data: bytes, rng: Rng) -> bytes:
    return data[: int(rng.choice([_at(data, rng), max(len(data) - int(rng.integers(1, 20)), 0), 0, 1, 8, 512]))]


def cut_before(data: bytes, rng: Rng) -> bytes:
    return data[_at(data, rng) :]


def insert(data: bytes, rng: Rng) -> bytes:
    at = _at(data, rng)
    return data[:at] + rng.bytes(int(rng.choice([1, 2, 4, 7, 100]))) + data[at:]


def delete(data: bytes, rng: Rng) -> bytes:
    at = _at(data, rng)
    return data[:at] + data[at + int(rng.choice([1, 2, 4, 7, 100])) :]


def fill(data: bytes, rng: Rng) -> bytes:
    at, n = _at(data, rng), int(rng.choice([1, 4, 8, 64, 1024]))
    value = bytes([int(rng.choice([0, 255, 127, 128]))])
    return data[:at] + value * min(n, len(data) - at) + data[at + n :]


def swap(data: bytes, rng: Rng) -> bytes:
    n = int(rng.choice([1, 2, 8, 64, 512]))
    a, b = sorted((_at(data, rng), _at(data, rng)))
    if b < a + n or b + n > len(data):
        return flip(data, rng)
    return data[:a] + data[b : b + n] + data[a + n : b] + data[a : a + n] + data[b + n :]


def repeat(data: bytes, rng: Rng) -> bytes:
    at, n = _at(data, rng), int(rng.choice([1, 8, 64, 512]))
    return data[: at + n] + data[at : at + n] * int(rng.choice([1, 2, 50])) + data[at + n :]


def length_field(data: bytes, rng: Rng) -> bytes:
    """A whole number of 2, 4 or 8 bytes with a value at the edge of its range."""
    width = int(rng.choice([2, 4, 8]))
    at = _at(data, rng)
    at -= at % (width if rng.random() < 0.7 else 1)
    top = 2 ** (8 * width)
    values = (0, 1, 2, 255, top - 1, top // 2, top // 2 - 1, len(data), len(data) + 1, 65536 % top, 10**9 % top)
    value = values[int(rng.integers(len(values)))] % top
    return data[:at] + value.to_bytes(width, str(rng.choice(["little", "big"]))) + data[at + width :]


def ascii_number(data: bytes, rng: Rng) -> bytes:
    """A number that stands as text in the first 64 kilobytes."""
    found = list(re.finditer(rb"[0-9]+", data[:65536]))
    if not found:
        return flip(data, rng)
    one = found[int(rng.integers(len(found)))]
    return data[: one.start()] + str(rng.choice(_NUMBERS)).encode() + data[one.end() :]


def replace(data: bytes, rng: Rng) -> bytes:
    whole = (b"", _WEB_PAGE, rng.bytes(200), data + data, b"\x80\x04" + _CALLS[0] + b".", b"\x1f\x8b\x08\x00", b"PK\x03\x04",
             b"\x89HDF\r\n\x1a\n", b"MATLAB 5.0", b"\x93NUMPY\x01\x00", b"\n", b"\x00" * 4096)  # fmt: skip
    return whole[int(rng.integers(len(whole)))]


def append(data: bytes, rng: Rng) -> bytes:
    return data + rng.bytes(int(rng.choice([1, 4, 100, 5000])))


_BLIND = (flip, flip, randomise, cut, cut_before, insert, delete, fill, swap, repeat, length_field, length_field,
          ascii_number, replace, append)  # fmt: skip


def _blind(rng: Rng) -> Callable[[bytes, Rng], bytes]:
    return _BLIND[int(rng.integers(len(_BLIND)))]


# -- by format ---------------------------------------------------------------------------------------------------------


def _fitting(name: str, data: bytes) -> list[Callable[[bytes, Rng], bytes]]:
    suffix = Path(name).suffix.lower()
    if data[:2] == b"\x1f\x8b":
        return [gzipped]
    if data[:4] == b"PK\x03\x04":
        return [zipped, zipped, zip_names]
    if data[:8] == b"\x89HDF\r\n\x1a\n" or data[512:520] == b"\x89HDF\r\n\x1a\n":
        return [hdf5]
    if data[:6] == b"\x93NUMPY":
        return [npy_header]
    if data[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04"):
        return [pickled, pickled_name]
    if data[344:348] in (b"n+1\0", b"ni1\0") or data[4:8] == b"n+2\0":
        return [nifti_header]
    if suffix == ".safetensors":
        return [safetensors_header]
    if suffix in (".json", ".jsonl"):
        return [json_node, json_node, json_node, json_deep, lines]
    if suffix in (".csv", ".tsv", ".txt"):
        return [cells, cells, columns, lines]
    if suffix in (".yaml", ".yml", ".md"):
        return [lines, words, yaml_deep]
    return []


def gzipped(data: bytes, rng: Rng) -> bytes:
    inner = gzip.decompress(data)
    name = "x.nii" if inner[344:348] in (b"n+1\0", b"ni1\0") else "x.bin"
    return gzip.compress(mutated(inner, name, rng), compresslevel=1, mtime=0)


def zipped(data: bytes, rng: Rng) -> bytes:
    """A member changed, in an archive that is in order."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(i.filename, archive.read(i)) for i in archive.infolist()]
    chosen = int(rng.integers(len(members)))
    name, inner = members[chosen]
    members[chosen] = (name, mutated(inner, name, rng))
    return _zip(members)


def zip_names(data: bytes, rng: Rng) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(i.filename, archive.read(i)) for i in archive.infolist()]
    chosen = int(rng.integers(len(members)))
    name, inner = members[chosen]
    action = int(rng.integers(4))
    if action == 0:
        del members[chosen]
    elif action == 1:
        members[chosen] = (str(rng.choice(["../x", "/etc/x", "a/b", "x" * 300, "", "é"])) + name, inner)
    elif action == 2:
        other = members[int(rng.integers(len(members)))]
        members[chosen] = (name, other[1])
    else:
        members.append((f"{name}2", inner))
    return _zip(members)


def _zip(members: list[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, inner in members:
            archive.writestr(name or "_", inner)
    return out.getvalue()


def hdf5(data: bytes, rng: Rng) -> bytes:
    """One data set replaced, renamed or taken out, in a file that is in order."""
    import h5py

    buffer = io.BytesIO(data)
    with h5py.File(buffer, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        name = names[int(rng.integers(len(names)))]
        old, attrs = file[name], dict(file[name].attrs)
        shape, value = old.shape or (), old[()]
        action = int(rng.integers(12))
        if action == 0:
            del file[name]
            return _closed(file, buffer)
        new = {
            1: lambda: np.zeros((0, *shape[1:])),
            2: lambda: np.asarray(value).T,
            3: lambda: np.asarray(value)[None],
            4: lambda: np.array(["x"] * max(1, shape[0] if shape else 1), dtype=h5py.string_dtype()),
            5: lambda: np.float64(3.0),
            6: lambda: np.full(shape, np.nan),
            7: lambda: np.zeros(shape, dtype=[("a", "f4"), ("b", "i4")]),
            8: lambda: np.zeros(shape, dtype=np.complex64),
            9: lambda: np.asarray(value)[: max(0, (shape or (1,))[0] - 1)],
            10: lambda: np.full(shape, 1e30),
            11: lambda: np.full(shape, -7, dtype=np.int8),
        }[action]()
        del file[name]
        made = file.create_dataset(name, data=new)
        for key, attribute in attrs.items():
            if rng.random() < 0.8:
                made.attrs[key] = attribute
        return _closed(file, buffer)


def _closed(file: object, buffer: io.BytesIO) -> bytes:
    file.close()
    return buffer.getvalue()


def npy_header(data: bytes, rng: Rng) -> bytes:
    length = int.from_bytes(data[8:10], "little")
    header = data[10 : 10 + length].decode("latin1").rstrip()
    swaps = (
        (r"'descr': '[^']*'", ["'descr': '|O'", "'descr': '<f8'", "'descr': '<c8'", "'descr': '<U5'", "'descr': '|V4'",
                               "'descr': '>f4'", "'descr': '<M8[s]'", "'descr': [('a', '<f4')]", "'descr': '|b1'",
                               "'descr': '<f2'", "'descr': 'x'"]),
        (r"'shape': \([^)]*\)", ["'shape': (1000000000000,)", "'shape': (-1, 2)", "'shape': ()", "'shape': (0, 5)",
                                 "'shape': (4294967296, 4294967296)", "'shape': (2, 2, 2)", "'shape': (1,)"]),
        (r"'fortran_order': \w+", ["'fortran_order': True", "'fortran_order': 5"]),
        (r"^\{", ["{'extra': 1, ", "", "{" * 200, "(" * 400]),
    )  # fmt: skip
    pattern, news = swaps[int(rng.integers(len(swaps)))]
    new = news[int(rng.integers(len(news)))]
    header = re.sub(pattern, lambda _: new, header, count=1) + "\n"
    return data[:8] + len(header).to_bytes(2, "little") + header.encode("latin1") + data[10 + length :]


def nifti_header(data: bytes, rng: Rng) -> bytes:
    """A field of the header: sizes, kind of number, where the data begin, scaling, affine."""
    fields = (
        [(40 + 2 * i, "h") for i in range(8)] + [(70, "h"), (72, "h"), (0, "i")] + [(76 + 4 * i, "f") for i in range(8)]
        + [(108, "f"), (112, "f"), (116, "f"), (123, "b"), (252, "h"), (254, "h")] + [(280 + 4 * i, "f") for i in range(12)]
    )  # fmt: skip
    at, kind = fields[int(rng.integers(len(fields)))]
    values = (
        (0.0, -1.0, 1e30, np.nan, np.inf, 3.5, 1e9)
        if kind == "f"
        else (0, -1, 1, 2, 4, 5, 8, 127, 32767, 3000, 64, 1536)
    )
    value = values[int(rng.integers(len(values)))]
    size = struct.calcsize(kind)
    raw = struct.pack(f"<{kind}", value if kind == "f" else max(-128, min(127, value)) if kind == "b" else value)
    return data[:at] + raw + data[at + size :]


def pickled(data: bytes, rng: Rng) -> bytes:
    """A call put into a pickle."""
    at = _at(data, rng)
    return data[:at] + _CALLS[int(rng.integers(len(_CALLS)))] + (b"0" if rng.random() < 0.5 else b"") + data[at:]


def pickled_name(data: bytes, rng: Rng) -> bytes:
    swaps = ((b"collections\nOrderedDict", b"posix\nsystem"), (b"torch._utils\n", b"os\n"), (b"torch\n", b"builtins\n"),
             (b"_rebuild_tensor_v2", b"_rebuild_sparse_tensor"), (b"FloatStorage", b"Storage"), (b"OrderedDict", b"defaultdict"),
             (b"_reconstruct_persistent_obj", b"system"), (b"storage", b"module"), (b"cpu", b"gpu"))  # fmt: skip
    there = [(a, b) for a, b in swaps if a in data]
    if not there:
        return pickled(data, rng)
    a, b = there[int(rng.integers(len(there)))]
    return data.replace(a, b, 1)


def safetensors_header(data: bytes, rng: Rng) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header = json_node(data[8 : 8 + length], rng)
    announced = len(header) if rng.random() < 0.8 else int(rng.choice([0, 2**40, 2**63 - 1, len(header) - 3, 2**31]))
    return announced.to_bytes(8, "little") + header + data[8 + length :]


def json_node(data: bytes, rng: Rng) -> bytes:
    """One value, key or entry of a JSON text replaced, taken out or doubled."""
    text = data.decode()
    first, rest = (text, "") if not text.startswith("{") or "\n{" not in text else text.split("\n", 1)
    value = json.loads(first)
    places: list[tuple] = []

    def walk(node: object, path: tuple) -> None:
        places.append(path)
        for key, inner in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
            if len(places) < 5000:
                walk(inner, (*path, key))

    walk(value, ())
    path = places[int(rng.integers(len(places)))]
    new = copy.deepcopy(_NODES[int(rng.integers(len(_NODES)))])
    if not path:
        return json.dumps(new).encode()
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    action = int(rng.integers(6))
    if action == 0:
        del parent[path[-1]]
    elif action == 1 and isinstance(parent, dict):
        parent[str(rng.choice(["x", "", "é", "kind", "format", f"{path[-1]} "]))] = parent.pop(path[-1])
    elif action == 2 and isinstance(parent, list):
        parent.append(parent[path[-1]])
    else:
        parent[path[-1]] = new
    out = json.dumps(value, ensure_ascii=bool(rng.random() < 0.5))
    return (out + (f"\n{rest}" if rest else "")).encode("utf-8", "surrogatepass")


def json_deep(data: bytes, rng: Rng) -> bytes:
    n = int(rng.choice([500, 5000, 100_000]))
    return b"[" * n + b"]" * n if rng.random() < 0.5 else b'{"a":' * n + b"1" + b"}" * n


def yaml_deep(data: bytes, rng: Rng) -> bytes:
    n = int(rng.choice([200, 2000]))
    return data + b"\ndeep: " + b"[" * n + b"]" * n + b"\n"


def cells(data: bytes, rng: Rng) -> bytes:
    separator = "\t" if b"\t" in data else "," if b"," in data else " "
    rows = data.decode("utf-8", "surrogateescape").split("\n")
    row = int(rng.integers(len(rows)))
    parts = rows[row].split(separator)
    new = str(rng.choice(_NUMBERS)) if rng.random() < 0.6 else _TEXTS[int(rng.integers(len(_TEXTS)))]
    parts[int(rng.integers(len(parts)))] = new
    rows[row] = separator.join(parts)
    return "\n".join(rows).encode("utf-8", "surrogateescape")


def columns(data: bytes, rng: Rng) -> bytes:
    separator = b"\t" if b"\t" in data else b"," if b"," in data else b" "
    rows = [r.split(separator) for r in data.split(b"\n")]
    n = max(map(len, rows))
    a, b, action = int(rng.integers(n)), int(rng.integers(n)), int(rng.integers(3))
    for row in rows:
        if max(a, b) < len(row):
            if action == 0:
                del row[a]
            elif action == 1:
                row[a], row[b] = row[b], row[a]
            else:
                row.insert(a, row[b])
    return b"\n".join(separator.join(row) for row in rows)


def lines(data: bytes, rng: Rng) -> bytes:
    rows = data.split(b"\n")
    a, b, action = int(rng.integers(len(rows))), int(rng.integers(len(rows))), int(rng.integers(6))
    if action == 0:
        del rows[a]
    elif action == 1:
        rows[a], rows[b] = rows[b], rows[a]
    elif action == 2:
        rows.insert(a, rows[b])
    elif action == 3:
        rows.insert(a, b"\xff\xfe\x00bad")
    elif action == 4:
        rows.insert(a, b"")
    else:
        rows = rows[:1]
    return (b"\r" if rng.random() < 0.1 else b"\n").join(rows)


def words(data: bytes, rng: Rng) -> bytes:
    found = list(re.finditer(rb"[^\s:,\[\]{}]+", data))
    one = found[int(rng.integers(len(found)))]
    news = (*_NUMBERS, *_TEXTS, "!!python/object/apply:os.system [true]", "&a [*a]", "*a", "!x", "|", ">-", "? x", "<<: {}",
            "2001-01-01", "{a: {a: {a: 1}}}", "!!binary x", "!!timestamp 2001-99-99", "0o9", "1:2:3", "- x", "%TAG")  # fmt: skip
    return data[: one.start()] + news[int(rng.integers(len(news)))].encode() + data[one.end() :]
