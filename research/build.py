"""Config blocks into objects: a block is a `name` from a menu and that constructor's arguments, checked by type."""

from __future__ import annotations

import ast
import copy
import dataclasses
import difflib
import functools
import inspect
import json
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Menu = Mapping[str, Callable[..., Any]]

_LINEN_FIELDS = ("parent", "name")  # every Linen module has them; no config sets them


@dataclass(frozen=True)
class Block:
    """Marks a constructor's argument as a block of its own: `Annotated[Mapping, Block("tokenizer", TOKENIZERS)]`.

    A menu whose only name is "" describes a block that has no choice, only arguments.
    """

    kind: str
    menu: Menu


def build(block: Mapping[str, Any], menu: Menu, *, kind: str, **offered: Any) -> Any:
    """Calls the constructor that `block` names with its arguments, and with those of `offered` that it takes.

    What the block says wins over what is offered.

    Raises:
      ValueError: an unknown name or key (the nearest is named), a missing key, a value of the wrong type.
    """
    constructor, arguments = _complete(block, Block(kind, menu), offered)
    return constructor(**arguments)


def resolve(block: Mapping[str, Any], menu: Menu, *, kind: str, **offered: Any) -> dict[str, Any]:
    """The block with every default and every offered argument written out, so that it can be rebuilt from JSON."""
    constructor, arguments = _complete(block, Block(kind, menu), offered)
    full = {"name": block["name"]} if "name" in block else {}
    for key, (annotation, default) in parameters(constructor).items():
        value = arguments.get(key, default)
        nested = _block_of(annotation)
        if nested is not None and isinstance(value, Mapping):
            value = resolve(value, nested.menu, kind=key, **offered) if value else {}
        full[key] = value
    return full


def check(block: Mapping[str, Any], menu: Menu, *, kind: str, path: str = "", offered: Iterable[str] = ()) -> None:
    """Raises ValueError where the block (and blocks within it) has an unknown key, a wrong type or a missing key."""
    constructor, arguments = _choose(block, Block(kind, menu), path)
    known = parameters(constructor)
    for key in arguments:
        if key not in known:
            raise ValueError(f"{path}.{key}".lstrip(".") + f": no such key; {nearest(key, known)}")
    for key, value in arguments.items():
        _check_value(value, known[key][0], f"{path}.{key}".lstrip("."), offered)
    missing = [key for key, (_, default) in known.items() if default is inspect.Parameter.empty]
    missing = [key for key in missing if key not in arguments and key not in offered]
    if missing:
        here = f"{path}.{missing[0]}".lstrip(".")
        raise ValueError(f"{here} is missing; set it on the page or with --config.{here}=…")


def override(page: dict[str, Any], root: Menu, *, key: str, text: str) -> None:
    """Sets `key` ("optimizer.peak_rate") of the nested page to `text`, typed by the annotation of that argument.

    A block that is not on the page is put there with what its constructor has by default.

    Raises:
      ValueError: no constructor on the way takes such a key (the nearest is named), or `text` is not of its type; the
        page is as before then.
    """
    block, current, path = Block("", root), page, []
    opened: list[tuple[dict[str, Any], str, dict[str, Any]]] = []
    *parents, last = key.split(".")
    for parent in parents:
        annotation, default = _argument(current, block, parent, path, key)
        path.append(parent)
        nested = _block_of(annotation)
        if nested is None:
            raise ValueError(f"--config.{key}: {'.'.join(path)} holds one value, not keys")
        block, holder = nested, current
        if parent in holder:
            current = holder[parent]
        else:
            current = copy.deepcopy(dict(default)) if isinstance(default, Mapping) else {}
        _known_block(current, ".".join(path))
        opened.append((holder, parent, current))
    if last == "name" and "" not in block.menu:
        _known_name(text, block, ".".join(path))
        if current.get("name") != text:  # arguments of one constructor do not fit another
            kept = {name: value for name, value in current.items() if name in parameters(block.menu[text])}
            current.clear()
            current.update(kept, name=text)
    else:
        current[last] = _parse(text, _argument(current, block, last, path, key)[0], key)
    for holder, parent, held in opened:
        holder[parent] = held


def parameters(constructor: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """Each argument's annotation and default (`inspect.Parameter.empty` where it has none)."""
    inner, bound = constructor, set()
    while isinstance(inner, functools.partial):
        bound |= inner.keywords.keys()
        inner = inner.func
    fields = dataclasses.fields(inner) if dataclasses.is_dataclass(inner) else ()
    factories = {item.name: item.default_factory for item in fields if item.name not in bound}
    where = inner.__init__ if isinstance(inner, type) else inner
    hints = typing.get_type_hints(inner if isinstance(inner, type) else where, include_extras=True)
    if isinstance(inner, type) and not hints:
        hints = typing.get_type_hints(where, include_extras=True)
    found = {}
    for name, parameter in inspect.signature(constructor).parameters.items():
        if name in _LINEN_FIELDS or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        factory = factories.get(name, dataclasses.MISSING)
        default = parameter.default if factory is dataclasses.MISSING else factory()
        found[name] = (hints.get(name, Any), default)
    return found


def nearest(word: str, choices: Iterable[str]) -> str:
    """A phrase that names the choice nearest to `word`, and all of them."""
    names = sorted(choices)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    listed = ", ".join(names)
    return f"did you mean {close[0]}? (there are: {listed})" if close else f"there are: {listed}"


def _complete(
    block: Mapping[str, Any], spec: Block, offered: Mapping[str, Any]
) -> tuple[Callable[..., Any], dict[str, Any]]:
    constructor, arguments = _choose(block, spec, spec.kind)
    check(block, spec.menu, kind=spec.kind, path=spec.kind, offered=offered)
    known = parameters(constructor)
    taken = {key: value for key, value in offered.items() if key in known}
    given = {key: _with_tuples(value, known[key][0]) for key, value in arguments.items()}
    return constructor, {**taken, **given}


def _choose(block: Mapping[str, Any], spec: Block, path: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    _known_block(block, path)
    if "" in spec.menu:
        return spec.menu[""], dict(block)
    if "name" not in block:
        raise ValueError(f"{path}.name is missing; choose one of {', '.join(sorted(spec.menu))}")
    name = block["name"]
    _known_name(name, spec, path)
    return spec.menu[name], {key: value for key, value in block.items() if key != "name"}


def _known_block(block: Any, path: str) -> None:
    if not isinstance(block, Mapping):
        raise ValueError(f"{path}={block!r} is not a block; write {path}=dict(name=…, …)")


def _known_name(name: Any, spec: Block, path: str) -> None:
    if not isinstance(name, str) or name not in spec.menu:
        raise ValueError(f"{path}.name={name!r}: no such {spec.kind}; {nearest(str(name), spec.menu)}")


def _argument(current: Mapping[str, Any], block: Block, key: str, path: list[str], whole: str) -> tuple[Any, Any]:
    constructor, _ = _choose(current, block, ".".join(path))
    known = parameters(constructor)
    if key not in known:
        raise ValueError(f"--config.{whole}: no such key; {nearest(key, known)}")
    return known[key]


def _block_of(annotation: Any) -> Block | None:
    for extra in getattr(annotation, "__metadata__", ()):
        if isinstance(extra, Block):
            return extra
    return None


def _check_value(value: Any, annotation: Any, path: str, offered: Iterable[str] = ()) -> None:
    nested = _block_of(annotation)
    if nested is not None:
        if value != {}:
            check(value, nested.menu, kind=nested.kind, path=path, offered=offered)
        return
    if not _fits(value, annotation):
        raise ValueError(f"{path}={value!r} is {type(value).__name__}; wanted {_describe(annotation)}")


def _fits(value: Any, annotation: Any) -> bool:
    annotation = _plain(annotation)
    origin = typing.get_origin(annotation)
    if annotation is Any or isinstance(annotation, (str, typing.TypeVar)):
        return True
    if origin is typing.Literal:
        return any(value == choice and type(value) is type(choice) for choice in typing.get_args(annotation))
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, choice) for choice in _choices(annotation))
    if annotation is type(None):
        return value is None
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation in (bool, str):
        return isinstance(value, annotation)
    if origin is tuple:
        items = typing.get_args(annotation)
        if not isinstance(value, (tuple, list)):
            return False
        if len(items) == 2 and items[1] is Ellipsis:
            return all(_fits(item, items[0]) for item in value)
        return len(items) == len(value) and all(map(_fits, value, items))
    if origin is not None and isinstance(origin, type):
        return isinstance(value, origin) and not isinstance(value, str)  # a text is no Sequence[str]
    return True  # arrays, modules: offered by the hall, never written on a page


def _parse(text: str, annotation: Any, key: str) -> Any:
    plain = _plain(annotation)
    if _block_of(annotation) is not None:
        raise ValueError(f"--config.{key} is a block of keys; set one of them, such as --config.{key}.name=…")
    # Any text is a str, "None" too: try that last.
    for choice in sorted(_choices(plain), key=lambda choice: choice is str):
        value = _read(text, choice)
        if value is not _UNREAD and _fits(value, choice):
            return value
    raise ValueError(f"--config.{key}={text}: wanted {_describe(annotation)}")


_UNREAD = object()


def _read(text: str, annotation: Any) -> Any:
    annotation = _plain(annotation)
    if annotation is type(None):
        return None if text in ("None", "null") else _UNREAD
    if annotation is bool:
        return {"true": True, "false": False}.get(text.lower(), _UNREAD)
    if annotation is str:
        return text
    if annotation in (int, float):
        try:
            return annotation(text.replace("_", ""))
        except ValueError:
            return _UNREAD
    origin = typing.get_origin(annotation)
    if origin is typing.Literal and text in typing.get_args(annotation):
        return text
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = _UNREAD
    if origin is tuple and not isinstance(value, list):
        quoted = _read_quoted(text)
        if quoted is not None:
            return quoted
        item = typing.get_args(annotation)[0]
        value = [_read(part.strip(), item) for part in text.strip("()").split(",") if part.strip()]
        if _UNREAD in value:
            return _UNREAD
    return value if origin is list else _frozen(value)


def _read_quoted(text: str) -> tuple[Any, ...] | None:
    """A tuple of strings as Python writes it, `('a', 'b')`; None for anything else, `a,b` too."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, tuple) and all(isinstance(item, str) for item in value) else None


def _with_tuples(value: Any, annotation: Any) -> Any:
    """JSON has lists only; where a tuple fits (a Linen field must hash), they become tuples again."""
    origins = [typing.get_origin(choice) for choice in _choices(_plain(annotation))]
    fitting = any(isinstance(origin, type) and issubclass(tuple, origin) for origin in origins)
    return _frozen(value) if fitting else value


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value


def _choices(annotation: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if is_union else (annotation,)


def _plain(annotation: Any) -> Any:
    return annotation.__origin__ if hasattr(annotation, "__metadata__") else annotation


def _describe(annotation: Any) -> str:
    annotation = _plain(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(annotation)))
    return (
        annotation.__name__ if isinstance(annotation, type) and not typing.get_origin(annotation) else str(annotation)
    )
