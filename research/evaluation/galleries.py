"""Sections of report.html that show vectors: maps of points in colours, and galleries of what lies nearest."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

_TITLES = {"tsne": "t-SNE", "pca": "PCA"}
_MARGIN, _SIDE = 2.0, 96.0  # of a map, in percent
_SCALE = _SIDE / 1000.0  # coordinates are 0 to 1000


def embedding_map(found: Mapping[str, Any], result: Mapping[str, Any], split: str) -> str:
    """A row of maps for each column that colours them, with its purity and that of chance; one without colours where
    there are none. `found` is as `exhibits.make_map` says."""
    if "note" in found:
        return f'<p class="note">{html.escape(found["note"])}</p>'
    told = f'<p class="note">{found["rows"]:,} vectors of the {split} split, at length one; the axes have no unit.</p>'
    colours = found["colours"] or {"": {"names": [], "groups": [0] * found["rows"]}}
    return told + "".join(_row_of_maps(name, colour, found, result, split) for name, colour in colours.items())


def galleries(found: Sequence[Mapping[str, Any]]) -> str:
    """Each gallery as `exhibits.gallery` makes it: a line for each item that asks."""
    parts = []
    for each in found:
        lines = "".join(
            f'<div class="asked"><div class="query">{_item(row["query"])}</div>'
            f'<div class="answers">{"".join(map(_item, row["found"]))}</div></div>'
            for row in each["rows"]
        )
        title = html.escape(each["title"])
        parts.append(f'<h3>{title}</h3><p class="note">{html.escape(each["told"])}</p>{lines}')
    return "".join(parts)


def _row_of_maps(
    name: str, colour: Mapping[str, Any], found: Mapping[str, Any], result: Mapping[str, Any], split: str
) -> str:
    chance = result.get(f"floor/{split}/chance_map_purity_{name}")
    figures = []
    for method, points in sorted(found["points"].items(), reverse=True):  # t-SNE first
        purity = result.get(f"{split}/{'pca_' if method == 'pca' else ''}map_purity_{name}")
        aside = "" if purity is None or chance is None else f"purity {purity:.3f}, by chance {chance:.3f}"
        drawn = _dots(points, colour["groups"], len(colour["names"]))
        figures.append(
            f'<figure class="map"><figcaption>{_TITLES[method]} <span class="soft">{aside}</span></figcaption>'
            f'<div class="field"><svg viewBox="0 0 100 100" role="img" aria-label="{_TITLES[method]}">{drawn}</svg>'
            "</div></figure>"
        )
    keys = "".join(
        f'<span class="key hue{place}">{html.escape(str(group))}</span>' for place, group in enumerate(colour["names"])
    )
    if -1 in colour["groups"]:
        keys += '<span class="key plain">others</span>'
    title = f"<h3>By {html.escape(name.replace('_', ' '))}</h3><p class='keys-of-map'>{keys}</p>" if name else ""
    return f'{title}<div class="maps">{"".join(figures)}</div>'


def _dots(points: Sequence[Sequence[int]], groups: Sequence[int], num_groups: int) -> str:
    """A path for each group, of lines of no length with round ends; those without a colour lie below."""
    paths: dict[int, list[str]] = {place: [] for place in range(-1, max(num_groups, 1))}
    for (across, up), group in zip(points, groups, strict=True):
        x, y = _MARGIN + _SCALE * across, 100.0 - _MARGIN - _SCALE * up
        paths[group].append(f"M{x:.1f} {y:.1f}h0")
    kinds = {-1: "plain"} | {place: f"hue{place}" for place in range(max(num_groups, 1))}
    return "".join(f'<path class="spots {kinds[place]}" d="{"".join(d)}"/>' for place, d in paths.items() if d)


def _item(item: Mapping[str, Any]) -> str:
    """A picture, a text or both, with its cosine; framed where it is right."""
    parts = []
    if "image" in item:
        text = html.escape(str(item.get("text", "")))
        parts.append(f'<img src="{html.escape(item["image"])}" alt="{text}">')
    if item.get("text"):
        parts.append(f"<span>{html.escape(str(item['text']))}</span>")
    if "similarity" in item:
        parts.append(f"<small>{item['similarity']:.2f}</small>")
    kind = "item right" if item.get("right") else "item"
    return f'<div class="{kind}">{"".join(parts)}</div>'
