"""What each name in a module's functions is (a parameter, a local variable, …), read from the syntax tree."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator
from typing import NamedTuple

# Names that `site` or an interactive session adds are not the language's.
_BUILTINS = frozenset(dir(builtins)) - {"_", "copyright", "credits", "exit", "help", "license", "quit"}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_UNCERTAIN = ""

ROLES = ("attribute", "builtin", "definition", "keyword", "local", "method", "module", "parameter")


class Place(NamedTuple):
    """Where a name stands (line from 1, column from 0), what it is, and the lines of the outermost function."""

    line: int
    column: int
    name: str
    role: str
    first: int
    last: int


class RoleReader(ast.NodeVisitor):
    """Collects in `places` the names within functions whose role is certain; `self` and `cls` are left out.

      parameter   of the function around it, or of one around that
      local       a variable of such a function, or of a comprehension
      module      bound by `import`            definition  a function or class defined in this file
      builtin     bound nowhere in this file   keyword     the name of an argument in a call
      method      an attribute that is called  attribute   one that is not

    Names bound in more than one way, by `from … import`, by `global` or `nonlocal`, and variables of the module have
    none of these roles.
    """

    def __init__(self, tree: ast.Module):
        self.places: list[Place] = []
        self._function: ast.stmt | None = None
        scope = _bindings(tree.body)
        for name, role in scope.items():
            if role == "local":
                scope[name] = _UNCERTAIN
        self._sees_all = "*" not in scope  # after `from … import *` any name may be bound
        self._scopes = [scope]
        self._globals: set[str] = set()  # names that functions bind in the module
        self.visit(tree)
        bound_in_module = ("builtin", "definition", "module")
        self.places = [
            place for place in self.places if place.role not in bound_in_module or place.name not in self._globals
        ]

    def visit_Global(self, node: ast.Global) -> None:
        self._globals.update(node.names)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._visit_all([*node.decorator_list, *_defaults(node.args)])
        outermost = self._function is None
        if outermost:
            self._function = node
        self._within(_bindings(node.body) | _parameters(node.args), node.body)
        if outermost:
            self._function = None

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - the visitor's own naming

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._visit_all(_defaults(node.args))
        self._within(_parameters(node.args), [node.body])

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Names bound in a class are not seen from its methods, and what stands in it outside them has no function."""
        self._visit_all(statement for statement in node.body if isinstance(statement, _FUNCTIONS))

    def _visit_comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> None:
        self.visit(node.generators[0].iter)  # evaluated outside
        targets = [name for part in node.generators for name in ast.walk(part.target) if isinstance(name, ast.Name)]
        scope = {name.id: "local" for name in targets if isinstance(name.ctx, ast.Store)}
        rest = [part for part in ast.iter_child_nodes(node) if not isinstance(part, ast.comprehension)]
        for index, part in enumerate(node.generators):
            rest += [part.iter, *part.ifs] if index else part.ifs
        self._within(scope, rest)

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _visit_comprehension

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute):
            self._add_attribute(node.func, "method")
            self.visit(node.func.value)
        else:
            self.visit(node.func)
        for keyword in node.keywords:
            if keyword.arg:
                self._add(keyword.lineno, keyword.col_offset, keyword.arg, "keyword")
        self._visit_all([*node.args, *(keyword.value for keyword in node.keywords)])

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._add_attribute(node, "attribute")
        self.visit(node.value)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load) and node.id not in ("self", "cls"):
            self._add(node.lineno, node.col_offset, node.id, self._look_up(node.id))

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Annotations are left out: few sources have them, and their names mean types."""
        self._visit_all([node.target, *([node.value] if node.value else [])])

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Before Python 3.12 the places within f-strings are wrong."""

    def _look_up(self, name: str) -> str:
        for scope in reversed(self._scopes):
            if name in scope:
                return scope[name]
        return "builtin" if name in _BUILTINS and self._sees_all else _UNCERTAIN

    def _within(self, scope: dict[str, str], nodes: Iterable[ast.AST]) -> None:
        self._scopes.append(scope)
        self._visit_all(nodes)
        self._scopes.pop()

    def _visit_all(self, nodes: Iterable[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)

    def _add_attribute(self, node: ast.Attribute, role: str) -> None:
        self._add(node.end_lineno or 0, (node.end_col_offset or 0) - len(node.attr), node.attr, role)

    def _add(self, line: int, column: int, name: str, role: str) -> None:
        if self._function is not None and role in ROLES:
            last = self._function.end_lineno or line
            self.places.append(Place(line, column, name, role, self._function.lineno, last))


def _bindings(statements: Iterable[ast.stmt]) -> dict[str, str]:
    """The names that statements bind in their own scope, and how; uncertain where in more than one way."""
    bound: dict[str, str] = {}
    for name, role in _each_binding(statements):
        bound[name] = role if bound.get(name, role) == role else _UNCERTAIN
    return bound


def _each_binding(statements: Iterable[ast.stmt]) -> Iterator[tuple[str, str]]:
    waiting: list[ast.AST] = list(statements)
    while waiting:
        node = waiting.pop()
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            yield node.name, "definition"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.asname or alias.name.split(".")[0], "module"
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, _UNCERTAIN
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            yield from ((name, _UNCERTAIN) for name in node.names)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id, "local"
        elif isinstance(node, _COMPREHENSIONS):
            assigned = (part for part in ast.walk(node) if isinstance(part, ast.NamedExpr))
            yield from ((part.target.id, "local") for part in assigned)
        elif not isinstance(node, ast.Lambda):
            name = getattr(node, "rest", None) if isinstance(node, ast.MatchMapping) else None
            if isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
                name = node.name
            if name:
                yield name, "local"
            waiting.extend(ast.iter_child_nodes(node))


def _arguments(arguments: ast.arguments) -> list[ast.arg]:
    starred = [argument for argument in (arguments.vararg, arguments.kwarg) if argument]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *starred]


def _parameters(arguments: ast.arguments) -> dict[str, str]:
    return {argument.arg: "parameter" for argument in _arguments(arguments)}


def _defaults(arguments: ast.arguments) -> list[ast.expr]:
    return [*arguments.defaults, *(default for default in arguments.kw_defaults if default)]
