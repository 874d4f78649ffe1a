"""Pytrees as nested dicts of names, whatever their containers: what is stored does not depend on our classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

Flat = dict[tuple[str, ...], Any]


def flatten(tree: Any, *, keep_empty: bool = False) -> Flat:
    """Leaves by the names on their path, in the order of `jax.tree.leaves`; with `keep_empty`, empty dicts too."""
    is_leaf = (lambda node: isinstance(node, Mapping) and not node) if keep_empty else None
    pairs = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)[0]
    return {tuple(jax.tree_util.keystr((key,), simple=True) for key in path): leaf for path, leaf in pairs}


def nest(flat: Flat) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, leaf in flat.items():
        node = nested
        for part in name[:-1]:
            node = node.setdefault(part, {})
        if name:
            node[name[-1]] = leaf
    return nested
