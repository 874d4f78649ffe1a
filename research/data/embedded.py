"""Real text that every CPython brings along: its standard library's prose and code, and one task labelled in it.

Three sets, each with the splits train, val and test, split by module with one rule, so that no set's test modules
are another set's training modules:

  corpus  documents of prose (docstrings, comments) and of code without either: {"text", "kind", "module"}
  pairs   functions with their docstrings: {"docstring", "body", "name", "module"}
  roles   code with one name hidden by `<mask>`, labelled with what that name is: {"text", "label", "module"}

The contents follow the Python version; the rules do not.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
import re
import sys
import sysconfig
import tokenize
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from research.data import roles
from research.data.cache import cache_directory, write_whole
from research.data.roles import Place, RoleReader

SPLITS = ("train", "val", "test")

Record = dict[str, Any]

# Packages that some distributions leave out or ship apart, tables, jokes, and code that belongs to one machine.
_LEFT_OUT = frozenset(
    ("antigravity", "distutils", "encodings", "ensurepip", "idlelib", "lib2to3", "msilib", "pydoc_data", "sqlite3")
    + ("test", "this", "tkinter", "turtle", "turtledemo", "venv", "__hello__", "__phello__")
)
_LEFT_OUT_FOLDERS = frozenset(("__pycache__", "dist-packages", "site-packages", "test", "tests"))
_TABLE_ITEMS = 50  # a literal with more items than this is a table, neither prose nor code to learn from
_SHORTEST_DOCUMENT = 40  # characters
_WINDOW = 24  # words and marks on each side of a hidden name
_WORD_OR_MARK = re.compile(r"\w+|[^\w\s]")
_ROLE_COUNTS = {"train": 600, "val": 150, "test": 150}  # rows of each role


@dataclass(frozen=True)
class Module:
    """One source file, read once: its lines, its syntax tree, and which of its lines are prose."""

    name: str
    lines: tuple[str, ...]
    tree: ast.Module
    docstrings: tuple[tuple[int, int, str], ...]  # first line, last line (from 1), text
    comments: frozenset[int]  # lines (from 1) that hold a comment and nothing else


def splits(name: str) -> tuple[str, ...]:
    """The named splits of an embedded set."""
    _set(name)
    return SPLITS


def records(name: str, split: str) -> list[Record]:
    """The records of one split, in the order of modules and of their lines.

    Raises:
      ValueError: no such set or split, or a Python that was installed without its sources.
    """
    if split not in splits(name):
        raise ValueError(f"embedded:{name}[{split}]: no such split; there are: {', '.join(SPLITS)}")
    return [dict(record) for record in _all_records(name)[split]]


def describe(name: str) -> dict[str, int]:
    """Counts of an embedded set, by split: records, modules, characters, and records of each kind or label."""
    counts: dict[str, int] = {}
    for split in splits(name):
        rows = _all_records(name)[split]
        texts = [value for row in rows for key, value in row.items() if key in ("text", "docstring", "body")]
        counts[f"{split}/records"] = len(rows)
        counts[f"{split}/modules"] = len({row["module"] for row in rows})
        counts[f"{split}/characters"] = sum(map(len, texts))
        grouped = Counter(row[key] for row in rows for key in ("kind", "label") if key in row)
        counts.update({f"{split}/{group}": grouped[group] for group in sorted(grouped)})
    return counts


def split_of(module: str) -> str:
    """The split that a module belongs to: about eight, one and one in ten, by a hash of its dotted name."""
    share = int.from_bytes(hashlib.sha256(f"groundwork {module}".encode()).digest()[:8], "big") % 10
    return {8: "val", 9: "test"}.get(share, "train")


@cache
def _all_records(name: str) -> dict[str, list[Record]]:
    """The records of every split, from the cache where the same sources were read before by the same rules."""
    kept = cache_directory() / "embedded" / f"{name}-{_sources_key()}.json"
    if not kept.exists():
        write_whole(kept, json.dumps(_read_records(name)))
    return json.loads(kept.read_text(encoding="utf-8"))


def _sources_key() -> str:
    """Changes with the Python version, with any source file's size or time, and with the rules of this file."""
    paths = sorted(path for _, path in _source_files(sysconfig.get_path("stdlib")))
    sizes = [(path, (state := os.stat(path)).st_size, state.st_mtime_ns) for path in paths]
    rules = [Path(str(module.__file__)).read_bytes() for module in (sys.modules[__name__], roles)]
    return hashlib.sha256(repr((sys.version, sizes, rules)).encode()).hexdigest()[:32]


def _read_records(name: str) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {split: [] for split in SPLITS}
    for record in _set(name)(_modules()):
        found[split_of(record["module"])].append(record)
    return found


def _set(name: str) -> Callable[[Iterable[Module]], Iterator[Record]]:
    if name not in EMBEDDED:
        raise ValueError(f"embedded:{name}: no such set; there are: {', '.join(sorted(EMBEDDED))}")
    return EMBEDDED[name]


def _corpus(modules: Iterable[Module]) -> Iterator[Record]:
    """Each class or function at the top of a module, and each run of other statements, gives its prose and its code."""
    seen: set[str] = set()
    for module in modules:
        for first, last in _units(module):
            for kind, text in (("prose", _prose(module, first, last)), ("code", _code(module, first, last))):
                if len(text) >= _SHORTEST_DOCUMENT and _is_new(text, seen):
                    yield {"text": text, "kind": kind, "module": module.name}


def _pairs(modules: Iterable[Module]) -> Iterator[Record]:
    """Functions and methods whose docstring has at least four words and whose body is more than a placeholder."""
    seen_docstrings: set[str] = set()
    seen_bodies: set[str] = set()
    for module in modules:
        for node in ast.walk(module.tree):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            docstring = ast.get_docstring(node) or ""
            if len(docstring.split()) < 4 or len(node.body) < 2 or not _starts_line(module, node.body[1]):
                continue
            body = inspect.cleandoc("\n" + _code(module, node.body[1].lineno, node.end_lineno or node.lineno))
            if len(body) < _SHORTEST_DOCUMENT:
                continue
            if _is_new(docstring, seen_docstrings) and _is_new(body, seen_bodies):
                yield {"docstring": docstring, "body": body, "name": node.name, "module": module.name}


def _roles(modules: Iterable[Module]) -> Iterator[Record]:
    """Names hidden in code, the same number for each role: what the name is must be read from the code around it.

    At most three places of one name in one role and module are taken, and twelve of a role and module, so that no
    module's habits decide; which ones, a hash decides. No two texts are alike but for white space and punctuation.
    """
    candidates: dict[str, list[tuple[bytes, Record]]] = {split: [] for split in SPLITS}
    for module in modules:
        taken: Counter[tuple[str, ...]] = Counter()  # of each role, and of each role and name
        places = [(_digest(module.name, place.line, place.column), place) for place in _places(module)]
        for digest, place in sorted(places):
            if taken[place.role,] < 12 and taken[place.role, place.name] < 3:
                taken.update([(place.role,), (place.role, place.name)])
                record = {"text": _hidden(module, place), "label": place.role, "module": module.name}
                candidates[split_of(module.name)].append((digest, record))
    seen: set[str] = set()
    for split, found in candidates.items():
        wanted, labels = _ROLE_COUNTS[split], Counter()
        for _, record in sorted(found, key=lambda item: item[0]):
            if labels[record["label"]] < wanted and _is_new(record["text"], seen):
                labels[record["label"]] += 1
                yield record


def _places(module: Module) -> list[Place]:
    """The names of a module whose role is certain, within functions, on lines that remain in `_code`."""
    reader = RoleReader(module.tree)
    docstring_lines = {line for first, last, _ in module.docstrings for line in range(first, last + 1)}
    return [
        place
        for place in reader.places
        if place.line not in docstring_lines
        # the columns of a syntax tree count bytes
        and module.lines[place.line - 1].isascii()
        and module.lines[place.line - 1].startswith(place.name, place.column)
    ]


def _hidden(module: Module, place: Place) -> str:
    """Code around a place, at most 24 words or marks to each side within its function, the name itself hidden."""
    line = module.lines[place.line - 1]
    before, after = line[: place.column], line[place.column + len(place.name) :]
    above = _code(module, max(place.first, place.line - _WINDOW), place.line - 1)
    below = _code(module, place.line + 1, min(place.last, place.line + _WINDOW))
    before = f"{above}\n{before}" if above else before
    after = f"{after}\n{below}" if below else after
    starts = [match.start() for match in re.finditer(_WORD_OR_MARK, before)]
    ends = [match.end() for match in re.finditer(_WORD_OR_MARK, after)]
    before = before[starts[-_WINDOW] :] if len(starts) > _WINDOW else before.lstrip()
    after = after[: ends[_WINDOW - 1]] if len(ends) > _WINDOW else after
    return f"{before}<mask>{after}"


def _digest(module: str, line: int, column: int) -> bytes:
    return hashlib.sha256(f"{module} {line} {column}".encode()).digest()


def _modules() -> Iterator[Module]:
    root = sysconfig.get_path("stdlib")
    paths = sorted(_source_files(root))
    if not paths:
        raise ValueError(f"{root} holds no Python sources, which embedded data is made of; use a Python that has them")
    for name, path in paths:
        with tokenize.open(path) as file:
            source = file.read()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in old sources are not the user's concern
            tree = ast.parse(source)
        yield _read_module(name, source, tree)


def _source_files(root: str) -> Iterator[tuple[str, str]]:
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in _LEFT_OUT_FOLDERS]
        for file in files:
            name = os.path.relpath(os.path.join(folder, file), root).replace(os.sep, ".")
            package = name.split(".")[0]
            if file.endswith(".py") and package in sys.stdlib_module_names and package not in _LEFT_OUT:
                yield name.removesuffix(".py"), os.path.join(folder, file)


def _read_module(name: str, source: str, tree: ast.Module) -> Module:
    lines = tuple(source.split("\n"))
    docstrings, in_strings = [], set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            text = ast.get_docstring(node)
            first = node.body[0]
            if text and not lines[first.lineno - 1][: first.col_offset].strip():
                docstrings.append((first.lineno, first.end_lineno or first.lineno, text))
        elif isinstance(node, (ast.Constant, ast.JoinedStr)) and node.end_lineno != node.lineno:
            in_strings.update(range(node.lineno + 1, (node.end_lineno or node.lineno) + 1))
    comments = frozenset(
        number for number, line in enumerate(lines, 1) if line.lstrip().startswith("#") and number not in in_strings
    )
    return Module(name, lines, tree, tuple(sorted(docstrings)), comments)


def _units(module: Module) -> Iterator[tuple[int, int]]:
    """First and last lines of the documents of a module; comments go with what follows them."""
    start, end = 1, 0
    for node in module.tree.body:
        if _is_table(node):
            if end >= start:
                yield start, end
            start = (node.end_lineno or node.lineno) + 1
        elif isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            while first - 1 > end and first - 1 in module.comments:
                first -= 1
            if end >= start:
                yield start, end
            yield max(first, start), node.end_lineno or node.lineno
            start = (node.end_lineno or node.lineno) + 1
        end = node.end_lineno or node.lineno
    if len(module.lines) >= start:
        yield start, len(module.lines)


def _is_table(node: ast.stmt) -> bool:
    value = getattr(node, "value", None)
    items = getattr(value, "elts", None) or getattr(value, "keys", None) or ()
    return len(items) > _TABLE_ITEMS


def _prose(module: Module, first: int, last: int) -> str:
    """Docstrings and comments of the lines first..last, in their order, a blank line between them."""
    blocks = [(line, text) for line, _, text in module.docstrings if first <= line <= last]
    block: list[str] = []
    for number in range(first, last + 2):
        if number <= last and number in module.comments:
            block.append(module.lines[number - 1].strip().lstrip("#").removeprefix(" ").rstrip())
            continue
        text = "\n".join(line for line in block if re.search(r"\w", line)) if block else ""
        if len(text.split()) >= 3 and not text.startswith("!"):
            blocks.append((number - len(block), text))
        block = []
    return "\n\n".join(text for _, text in sorted(blocks))


def _code(module: Module, first: int, last: int) -> str:
    """The lines first..last without docstrings, comments on lines of their own, and runs of blank lines."""
    dropped = set(module.comments)
    for start, end, _ in module.docstrings:
        if first <= start <= last:
            dropped.update(range(start, end + 1))
    kept = [module.lines[number - 1].rstrip() for number in range(first, last + 1) if number not in dropped]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip("\n")


def _starts_line(module: Module, node: ast.stmt) -> bool:
    return not module.lines[node.lineno - 1][: node.col_offset].strip()


def _is_new(text: str, seen: set[str]) -> bool:
    """Whether no earlier text is the same but for case, digits, white space and punctuation."""
    key = "".join(re.findall(r"[^\W\d_]+", text.lower()))
    if key in seen:
        return False
    seen.add(key)
    return True


EMBEDDED: dict[str, Callable[[Iterable[Module]], Iterator[Record]]] = {
    "corpus": _corpus,
    "pairs": _pairs,
    "roles": _roles,
}
