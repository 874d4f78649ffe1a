"""Roles of names, against sources worked out by hand and against Python's own symbol tables."""

import ast
import builtins
import inspect
import shutil
import symtable
import textwrap
import zipfile

import pytest

from research.data.roles import RoleReader


def roles(source: str) -> list[tuple[str, str]]:
    found = sorted(RoleReader(ast.parse(textwrap.dedent(source))).places)
    return [(place.name, place.role) for place in found]


def test_every_role_is_recognised():
    source = """
        import os.path
        import numpy as np

        def helper(): ...

        def run(first, *rest, last=3, **options):
            total = len(rest)
            np.log(total, out=first)
            return helper(last).value + os.sep, options
        """
    assert roles(source) == [
        ("len", "builtin"), ("rest", "parameter"),
        ("np", "module"), ("log", "method"), ("total", "local"), ("out", "keyword"), ("first", "parameter"),
        ("helper", "definition"), ("last", "parameter"), ("value", "attribute"),
        ("os", "module"), ("sep", "attribute"), ("options", "parameter"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "source",
    [
        "from os import sep\ndef f(): sep",
        "LIMIT = 3\ndef f(): LIMIT",
        "try:\n  import json\nexcept ImportError:\n  json = None\ndef f(): json",
        "def f():\n  global len\n  len",
        "def g():\n  global len\n  len = 3\ndef f(): len",
        "from os import *\ndef f(): len",
        "def f(self, cls): self, cls",
        "def f(): unheard_of",
        "x = len(y)",
        "class A:\n  x = len('abc')",
        "def f(): return f'{len}'",
        "def f(x: int) -> str: ...",
    ],
)
def test_uncertain_names_are_left_out(source):
    assert roles(source) == []


def test_names_are_looked_up_through_scopes_as_python_does():
    source = """
        def outer(value):
            item = [item for item in value if item]
            def inner(other):
                return value, item, other, inner
            return lambda value: (value, item)

        class Box:
            size = 3
            def hold(self, print):
                print(size)
                return hold, [x for x in print]
        """
    assert roles(source) == [
        ("item", "local"), ("value", "parameter"), ("item", "local"),
        ("value", "parameter"), ("item", "local"), ("other", "parameter"), ("inner", "definition"),
        ("value", "parameter"), ("item", "local"),
        ("print", "parameter"), ("x", "local"), ("print", "parameter"),
    ]  # fmt: skip


def test_match_except_and_walrus_bind_locals():
    source = """
        def f(a):
            try:
                if any((last := x) for x in a):
                    return last
            except ValueError as error:
                return error
            match a:
                case [first, *rest]: return first, rest
                case {"k": 1, **others}: return others
        """
    found = dict(roles(source))
    assert {name for name, role in found.items() if role == "local"} == {
        "x",
        "last",
        "error",
        "first",
        "rest",
        "others",
    }
    assert found["ValueError"] == found["any"] == "builtin"


@pytest.mark.parametrize("module", [shutil, zipfile, textwrap, inspect], ids=lambda module: module.__name__)
def test_roles_agree_with_the_compilers_symbol_tables(module):
    """A name that all functions of a file use in one way must have that way's role."""
    source = inspect.getsource(module)
    parameters, others, module_level = set(), set(), {}
    waiting = [symtable.symtable(source, module.__name__, "exec")]
    module_level = {symbol.get_name(): symbol for symbol in waiting[0].get_symbols()}
    while waiting:
        table = waiting.pop()
        waiting.extend(table.get_children())
        for symbol in table.get_symbols():
            if table.get_type() == "function" and symbol.is_local():
                (parameters if symbol.is_parameter() else others).add(symbol.get_name())
    counted = 0
    for place in RoleReader(ast.parse(source)).places:
        if place.role == "parameter":
            assert place.name in parameters
        elif place.role == "local":
            assert place.name in others
        elif place.role in ("module", "definition") and place.name not in others:
            symbol = module_level[place.name]
            assert symbol.is_imported() if place.role == "module" else symbol.is_namespace()
        elif place.role == "builtin":
            assert hasattr(builtins, place.name) and not (
                place.name in module_level and module_level[place.name].is_assigned()
            )
        counted += place.role not in ("attribute", "method", "keyword")
    assert counted > 100
