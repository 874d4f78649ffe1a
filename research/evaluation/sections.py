"""Sections of report.html on what a model is worth: evidence, robustness, slices and forgetting."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from research.evaluation.charts import Series, chart, short
from research.evaluation.evidence import HEADS, caption, cells
from research.evaluation.scores import ROBUSTNESS
from research.metrics import more_is_better

SLICES = "/slices"
FORGETTING = "forgetting/"


def evidence(found: Mapping[str, Any]) -> str:
    """Arms by budget of labels, their learning curves where there are several, and what perturbations cost each."""
    budgets = found["budgets"]
    parts = [_table(HEADS, cells(found), caption(found))]
    if len(budgets) > 1:
        curves = chart(
            found["metric"],
            _curves(sorted(budgets, key=lambda budget: budget["labels"])),
            floors={},
            from_zero=False,
            wide=True,
            by="number of labels",
            logarithmic=True,
        )
        parts.append(f'<h3>By number of labels</h3><div class="charts">{curves}</div>')
    if "robustness" in budgets[0]:
        parts.append(f"<h3>Under perturbation</h3>{_drops_of_arms(budgets)}")
    lost = [budget for budget in budgets if "forgetting" in budget]
    if lost:
        rows = [[f"{budget['labels']:,}", _added(budget["forgetting"])] for budget in lost]
        told = "What finetuning adds to the loss of pretraining, in nats: mean ± 95 % interval"
        parts.append(f"<h3>Forgetting</h3>{_table(('labels', 'added'), rows, told)}")
    return "".join(parts)


def robustness(result: Mapping[str, Any]) -> str:
    """A row a perturbation: the headline figure and its change, then those of the floor."""
    found = {key: figures for key, figures in result.items() if key.startswith(ROBUSTNESS)}
    _, split, _ = next(iter(found)).split("/")
    names = [name for name in next(iter(found.values())) if not name.endswith("drop")]
    rows = []
    for key, figures in found.items():
        drops = [figures[name.removesuffix(names[0]) + "drop"] for name in names]
        cells = [f"{figures[name]:.3f} ({_change(drop):+.3f})" for name, drop in zip(names, drops, strict=True)]
        rows.append([_words(key.split("/")[2]), *cells])
    told = f"On the {split} split, perturbed; in brackets the change from the split as it is."
    return _table(("", *map(_words, names)), rows, told)


def slices(result: Mapping[str, Any], split: str) -> str:
    """A table a field, side by side."""
    tables = []
    for field, values in result[f"{split}{SLICES}"].items():
        headline = next(name for name in next(iter(values.values())))
        rows = [[value, f"{figures['rows']:,}", f"{figures[headline]:.3f}"] for value, figures in values.items()]
        tables.append(f"<div>{_table((_words(field), 'rows', _words(headline)), rows, '')}</div>")
    return f'<div class="pair">{"".join(tables)}</div>'


def forgetting(result: Mapping[str, Any]) -> str:
    before, after = result[f"{FORGETTING}before"], result[f"{FORGETTING}after"]
    told = (
        f"The loss of pretraining in nats, on {result[f'{FORGETTING}rows']:,} of its validation rows: before, of "
        "the model that finetuning started from; after, of the backbone that it left, under the same head."
    )
    return _table(("before", "after", "change"), [[short(before), short(after), f"{after - before:+.3g}"]], told)


def _curves(budgets: Sequence[Mapping[str, Any]]) -> list[Series]:
    labels = [float(budget["labels"]) for budget in budgets]
    arms = [
        Series(name, kind, labels, *zip(*((b[arm]["mean"], b[arm]["interval95"]) for b in budgets), strict=True))
        for arm, name, kind in (("pretrained", "pretrained", "train"), ("scratch", "from scratch", "val"))
    ]
    floors = dict.fromkeys(name for budget in budgets for name in budget["floors"])
    for floor in floors:
        having = [budget for budget in budgets if floor in budget["floors"]]
        means = [budget["floors"][floor]["mean"] for budget in having]
        arms.append(Series(f"floor: {floor}", "plain", [float(budget["labels"]) for budget in having], means))
    return arms


def _drops_of_arms(budgets: Sequence[Mapping[str, Any]]) -> str:
    kinds, headline = list(budgets[0]["robustness"]), budgets[0]["robustness_of"]
    in_percent, rows = more_is_better(headline), []
    for budget in budgets:
        for arm, name in (("pretrained", "pretrained"), ("scratch", "from scratch")):
            drops = [_change(budget["robustness"][kind][arm]["mean"]) for kind in kinds]
            rows.append([f"{budget['labels']:,}", name])
            rows[-1] += [f"{100 * drop:+.1f}" if in_percent else f"{drop:+.3f}" for drop in drops]
    unit = "percentage points of " if in_percent else ""
    told = f"The change under each perturbation of the texts, in {unit}{headline}: mean over the runs"
    return _table(("labels", "", *map(_words, kinds)), rows, told)


def _change(drop: float) -> float:
    return 0.0 if abs(drop) < 1e-9 else -drop  # no -0.000


def _added(lost: Mapping[str, Any]) -> str:
    return f"{lost['mean']:+.3g} ± {lost['interval95']:.2g}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], told: str) -> str:
    """The first cell of a row is its name."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
    body = "".join(
        f"<tr><th>{html.escape(first)}</th>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"
        for first, *cells in rows
    )
    below = f"<caption>{html.escape(told)}</caption>" if told else ""
    return f'<div class="scroll"><table class="figures">{below}<tr>{head}</tr>{body}</table></div>'


def _words(key: str) -> str:
    return key.replace("_", " ")
