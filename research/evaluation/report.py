"""The page of a run: report.html, one self-contained file of what its workdir holds."""

from __future__ import annotations

import html
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from research.evaluation import galleries, sections
from research.evaluation.charts import Series, chart, short
from research.evaluation.page import STYLE
from research.evaluation.scores import ROBUSTNESS
from research.evaluation.sections import FORGETTING, SLICES

FLOOR = "floor/"
SPLITS = ["train", "val", "shift", "test"]
MOST_CLASSES = 30  # of a confusion matrix that is drawn; of a larger one the most frequent confusions are listed
_HEADLINES = ("loss", "perplexity", "bits_per_byte", "accuracy", "f1", "precision", "recall", "roc_auc", "log_loss")
_TRUST = ("reliability", "abstention", "mistakes")
_MACHINE = {"devices": "", "cores": " cores"}  # shown in the heading, with their units
_TITLES = {
    "loss": "Loss (nats)",
    "rate": "Learning rate",
    "tokens_per_second": "Tokens per second",
    "examples_per_second": "Examples per second",
    "mfu": "Model FLOPs utilisation",
    "data_wait": "Share of time waiting for data",
}
_FEW = 8  # numbers that have a row each
_FROM_ZERO = ("rate", "tokens_per_second", "examples_per_second", "mfu", "data_wait")
_KINDS = {"fill_mask": "Filled masks", "generate": "Generated text", "classify": "Classified texts"}


def write_report(workdir: Path) -> Path:
    """Writes WORKDIR/report.html from metrics.jsonl and the .json files that a run leaves.

    What is missing or half written (a run in progress) is left out with a sentence. Conventions of the files:
      run.json: `command`, `commit`, `date`, `machine` are the heading; the rest is listed.
      result.json: "SPLIT/MEASURE" are the figures and "floor/SPLIT/NAME_MEASURE" their floors (of the loss where no
        measure is named; of the last split that has the measure where no split is); "SPLIT/confusion" (rows are true
        classes) with `label_names`; "SPLIT/reliability", "/abstention" and "/mistakes" as `calibration.py` makes them
        (or "/mistakes" alone); "SPLIT/slices", "robustness/SPLIT/KIND", "forgetting/NAME" and `evidence` as
        `sections.py` reads them; `wall_seconds`; the rest is listed.
      exhibits.json: `split`, and of its vectors `map` and `galleries` as `exhibits.py` makes them; may be missing.
      samples.json: a list of {"kind": "fill_mask", "generate" or "classify", "input": …, "output": …}.

    Raises:
      ValueError: no such directory.
    """
    workdir = Path(workdir)
    if not workdir.is_dir():
        raise ValueError(f"workdir={workdir} is not a directory; give the workdir of a run")
    config, config_note = _read(workdir / "config.json", dict)
    run, run_note = _read(workdir / "run.json", dict)
    result, result_note = _read(workdir / "result.json", dict)
    samples, samples_note = _read(workdir / "samples.json", list)
    shown, _ = _read(workdir / "exhibits.json", dict)
    lines, metrics_note = _read_metrics(workdir / "metrics.jsonl")
    name = workdir.resolve().name
    parts = [
        _heading(name, run=run, config=config, result=result, lines=lines),
        _section("Did pretraining help?", sections.evidence(result["evidence"]), "") if "evidence" in result else "",
        _section("Results", _results(result), result_note),
        "" if "evidence" in result else _section("Curves", _curves(lines, result), metrics_note),
        *(_section(f"Confusion matrix: {split}", _confusion(result, split), "") for split in _confused(result)),
        *(_section(f"By class: {split}", _by_class(result, split), "") for split in _unconfused(result)),
        *(_section(f"Can it be trusted? {split}", _trust(result, split), "") for split in _judged(result)),
        _section("How robust is it?", sections.robustness(result), "") if _has(result, ROBUSTNESS) else "",
        *(_section(f"Where is it right? {split}", sections.slices(result, split), "") for split in _sliced(result)),
        _section("How do its vectors lie?", galleries.embedding_map(shown["map"], result, shown["split"]), "")
        if "map" in shown
        else "",
        _section("What lies near?", galleries.galleries(shown["galleries"]), "") if shown.get("galleries") else "",
        _section("What has it forgotten?", sections.forgetting(result), "") if _has(result, FORGETTING) else "",
        "" if "evidence" in result else _section("Samples", _samples(samples), samples_note),
        _section("Config as it ran", _table_of(config), config_note),
        _section("Run", _table_of({key: value for key, value in run.items() if key != "command"}), run_note),
    ]
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(name)}</title><style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main></body></html>\n"
    )
    path, temporary = workdir / "report.html", workdir / "report.html.tmp"
    temporary.write_text(page, encoding="utf-8")
    os.replace(temporary, path)
    return path


def _heading(name: str, *, run: Mapping, config: Mapping, result: Mapping, lines: Sequence[Mapping]) -> str:
    num_steps, step = config.get("num_steps"), lines[-1]["step"] if lines else 0
    progress = f"step {step:,}" + (f" of {num_steps:,}" if isinstance(num_steps, int) else "")
    if "evidence" in result:
        progress = "of many runs, each with a report of its own under runs/"
    machine = run.get("machine")
    if isinstance(machine, Mapping):
        machine = ", ".join(f"{machine[key]}{unit}" for key, unit in _MACHINE.items() if key in machine)
    facts = {
        "state": f"{'finished' if result else 'no final result yet'}, {progress}",
        "commit": run.get("commit"),
        "machine": machine,
        "started": run.get("date"),
        "wall time": _duration(result.get("wall_seconds")),
    }
    items = "".join(
        f"<div><dt>{key}</dt><dd>{html.escape(_inline(value))}</dd></div>" for key, value in facts.items() if value
    )
    command = f"<pre>{html.escape(_inline(run['command']))}</pre>" if "command" in run else ""
    return f"<header><h1>{html.escape(name)}</h1>{command}<dl>{items}</dl></header>"


def _results(result: Mapping[str, Any]) -> str:
    """One row a figure, with a column for each floor; then whatever else result.json holds."""
    figures = {key: float(value) for key, value in result.items() if _is_figure(key, value)}
    floors = {key: float(value) for key, value in result.items() if key.startswith(FLOOR) and _is_number(value)}
    beside: dict[str, dict[str, float]] = {}  # figure -> floor's name -> value
    for key, value in floors.items():
        name, figure = _floor_of(key, figures)
        beside.setdefault(figure, {})[name] = value
    unplaced = {f"floor {name}": value for name, value in beside.pop("", {}).items()}
    names = list(dict.fromkeys(name for columns in beside.values() for name in columns))
    rows = []
    for key in sorted(figures, key=_rank):
        cells = "".join(_floor_cell(figures[key], beside.get(key, {}).get(name)) for name in names)
        rows.append(f"<tr><th>{html.escape(_words(key))}</th><td><b>{short(figures[key])}</b></td>{cells}</tr>")
    heads = "".join(f"<th>floor: {html.escape(name)}</th>" for name in names)
    table = f"<table class='figures'><tr><th></th><th>this run</th>{heads}</tr>{''.join(rows)}</table>" if rows else ""
    # These have sections of their own.
    known = {*figures, *floors, "evidence", "label_names", "confusion", "per_class", "slices", *_TRUST}
    known |= {"robustness", "forgetting"}
    rest = {
        key: value
        for key, value in result.items()
        if key not in known and key.split("/")[-1] not in known and key.split("/")[0] not in known
    }
    return (_scroll(table) if table else "") + _table_of(unplaced | rest)


def _floor_of(key: str, figures: Iterable[str]) -> tuple[str, str]:
    """The floor's name, and the figure that it stands beside ("" if none)."""
    name = key.removeprefix(FLOOR)
    splits = [split for split in SPLITS if name.startswith(split + "/")] or SPLITS
    if splits != SPLITS:
        name = name.split("/", 1)[1]
    measures = sorted({figure.split("/", 1)[1] for figure in figures}, key=len, reverse=True)
    measure = next((measure for measure in measures if name.endswith(("_" + measure, "/" + measure))), "")
    if measure:
        name = name[: -len(measure) - 1]
    fitting = [f"{split}/{measure or 'loss'}" for split in splits if f"{split}/{measure or 'loss'}" in figures]
    return _words(name), fitting[-1] if fitting else ""


def _floor_cell(figure: float, floor: float | None) -> str:
    if floor is None:
        return "<td></td>"
    return f"<td>{short(floor)} <small>{figure - floor:+.3g}</small></td>"


def _curves(lines: Sequence[Mapping[str, Any]], result: Mapping[str, Any]) -> str:
    """One chart a measure, the splits together."""
    keys = dict.fromkeys(key for line in lines for key, value in line.items() if "/" in key)
    measures = dict.fromkeys(["loss", "accuracy", "rate", "tokens_per_second", *(key.split("/", 1)[1] for key in keys)])
    if "train/tokens_per_second" in keys:
        measures.pop("examples_per_second", None)
    figures = [key for key, value in result.items() if _is_figure(key, value)]
    floors: dict[str, dict[str, float]] = {}
    for key in sorted(key for key, value in result.items() if key.startswith(FLOOR) and _is_number(value)):
        name, figure = _floor_of(key, figures)  # sorted: where both have one, val stands for the curves of val
        floors.setdefault(figure.split("/", 1)[-1], {})[name] = float(result[key])
    charts = []
    for measure in measures:
        series = [_series(lines, split, measure) for split in SPLITS if f"{split}/{measure}" in keys]
        charts.append(
            chart(
                _TITLES.get(measure, _words(measure).capitalize()),
                series,
                floors=floors.get(measure, {}),
                from_zero=measure in _FROM_ZERO,
                wide=measure == "loss",
            )
        )
    joined = "".join(charts)
    return f'<div class="charts">{joined}</div>' if joined else ""


def _series(lines: Sequence[Mapping[str, Any]], split: str, measure: str) -> Series:
    """The values at the steps that have them; null is a gap."""
    key = f"{split}/{measure}"
    points = [(line["step"], line[key]) for line in lines if key in line]
    values = [float(value) if _is_number(value) else math.nan for _, value in points]
    return Series(split, split, [float(step) for step, _ in points], values)


def _confused(result: Mapping[str, Any]) -> list[str]:
    return [split for split in reversed(SPLITS) if f"{split}/confusion" in result]


def _unconfused(result: Mapping[str, Any]) -> list[str]:
    """The splits that have figures by class and no confusion matrix, whose table would hold them."""
    confused = _confused(result)
    return [split for split in reversed(SPLITS) if split not in confused and result.get(f"{split}/per_class")]


def _by_class(result: Mapping[str, Any], split: str) -> str:
    found = result[f"{split}/per_class"]
    measures = list(dict.fromkeys(measure for values in found.values() for measure in values))
    heads = "".join(f"<th>{html.escape(_words(measure))}</th>" for measure in measures)
    rows = []
    for name, values in found.items():
        cells = "".join(f"<td>{short(float(values[key])) if key in values else ''}</td>" for key in measures)
        rows.append(f"<tr><th>{html.escape(name)}</th>{cells}</tr>")
    return _scroll(f"<table class='figures'><tr><th></th>{heads}</tr>{''.join(rows)}</table>")


def _confusion(result: Mapping[str, Any], split: str) -> str:
    matrix, names = result[f"{split}/confusion"], result.get("label_names")
    square = isinstance(matrix, list) and all(isinstance(row, list) and len(row) == len(matrix) for row in matrix)
    if not square or not matrix or not all(_is_number(cell) for row in matrix for cell in row):
        return _note("The confusion matrix of result.json is not a square table of numbers.")
    if not isinstance(names, list) or len(names) != len(matrix):
        names = [f"class {index}" for index in range(len(matrix))]
    names = [str(name) for name in names]
    matrix = [[float(count) for count in row] for row in matrix]
    picture = _heat_map(matrix, names) if len(matrix) <= MOST_CLASSES else _worst_confusions(matrix, names)
    return f'<div class="pair"><div>{picture}</div><div>{_per_class(matrix, names)}</div></div>'


def _heat_map(matrix: Sequence[Sequence[float]], names: Sequence[str]) -> str:
    """Shades are shares of the true class."""
    heads = "".join(f'<th class="column"><span>{html.escape(name)}</span></th>' for name in names)
    rows = []
    for name, row in zip(names, matrix, strict=True):
        cells = []
        for other, count in zip(names, row, strict=True):
            share = count / (sum(row) or 1)
            shade = f"--share:{100 * share:.0f}%"
            strong = ' class="strong"' if share > 0.55 else ""
            title = html.escape(f"{name}, called {other}: {short(count)} ({share:.1%})")
            cells.append(f'<td{strong} style="{shade}" title="{title}">{short(count)}</td>')
        rows.append(f"<tr><th>{html.escape(name)}</th>{''.join(cells)}</tr>")
    caption = "<caption>Rows: true class. Columns: predicted class. Shade: share of the row.</caption>"
    return _scroll(f'<table class="heat">{caption}<tr><td></td>{heads}</tr>{"".join(rows)}</table>')


def _worst_confusions(matrix: Sequence[Sequence[float]], names: Sequence[str]) -> str:
    pairs = [(count, i, j) for i, row in enumerate(matrix) for j, count in enumerate(row) if i != j and count]
    rows = "".join(
        f"<tr><th>{html.escape(names[i])}</th><td>{html.escape(names[j])}</td><td>{short(count)}</td></tr>"
        for count, i, j in sorted(pairs, key=lambda pair: -pair[0])[:20]
    )
    note = _note(f"{len(names)} classes are too many to draw: these are the most frequent confusions.")
    return note + _scroll(f"<table><tr><th>true</th><th>predicted</th><th>examples</th></tr>{rows}</table>")


def _per_class(matrix: Sequence[Sequence[float]], names: Sequence[str]) -> str:
    """Precision, recall and F1; 0 over 0 is 0, as in scikit-learn with zero_division=0."""
    rows = []
    for index, name in enumerate(names):
        right, true = matrix[index][index], sum(matrix[index])
        predicted = sum(row[index] for row in matrix)
        scores = (right / (predicted or 1), right / (true or 1), 2 * right / (true + predicted or 1))
        cells = "".join(f"<td>{score:.3f}</td>" for score in scores)
        rows.append(f"<tr><th>{html.escape(name)}</th>{cells}<td>{short(true)}</td></tr>")
    heads = "<tr><th></th><th>precision</th><th>recall</th><th>F1</th><th>examples</th></tr>"
    return _scroll(f'<table class="figures">{heads}{"".join(rows)}</table>')


def _has(result: Mapping[str, Any], start: str) -> bool:
    return any(key.startswith(start) for key in result)


def _sliced(result: Mapping[str, Any]) -> list[str]:
    return [split for split in reversed(SPLITS) if result.get(f"{split}{SLICES}")]


def _judged(result: Mapping[str, Any]) -> list[str]:
    return [split for split in reversed(SPLITS) if f"{split}/mistakes" in result]


def _trust(result: Mapping[str, Any], split: str) -> str:
    """Reliability and abstention side by side, then the mistakes that the model was surest of."""
    captions = {
        "reliability": "Examples by the probability of the predicted class: is it right as often as it says?",
        "abstention": "Answering only the surest share: how often it is right, and the probability it stops at.",
    }
    tables = []
    for name in [name for name in captions if f"{split}/{name}" in result]:
        caption, entries = captions[name], result[f"{split}/{name}"]
        heads = "".join(f"<th>{key}</th>" for key in entries[0])
        rows = "".join(
            f"<tr>{''.join(f'<td>{short(float(value))}</td>' for value in entry.values())}</tr>" for entry in entries
        )
        table = f"<table class='figures'><caption>{caption}</caption><tr>{heads}</tr>{rows}</table>"
        tables.append(f"<div>{_scroll(table)}</div>")
    wrong = "".join(
        f'<div class="sample"><div class="input">{html.escape(entry["text"])}</div><div class="output">'
        f"{html.escape(entry['label'])}, called {html.escape(entry['predicted'])} "
        f"({entry['probability']:.1%})</div></div>"
        for entry in result[f"{split}/mistakes"]
    )
    surest = f"<h3>Mistakes it was surest of</h3>{wrong}" if wrong else _note("It made no mistake.")
    return f'<div class="pair">{"".join(tables)}</div>{surest}'


def _samples(samples: Sequence[Any]) -> str:
    kinds: dict[str, list[str]] = {}
    for sample in samples:
        if isinstance(sample, Mapping):
            body = (
                f'<div class="input">{html.escape(_inline(sample.get("input", "")))}</div>'
                f'<div class="output">{_output(sample.get("output", ""))}</div>'
            )
            kinds.setdefault(str(sample.get("kind", "")), []).append(f'<div class="sample">{body}</div>')
    return "".join(
        f"<h3>{html.escape(_KINDS.get(kind, _words(kind).capitalize()))}</h3>{''.join(bodies)}"
        for kind, bodies in kinds.items()
    )


def _output(output: Any) -> str:
    """Text as it is; a list one a line (lists in it side by side); candidates with their probability and its bar."""
    if isinstance(output, list):
        return f'<div class="list">{"".join(f"<div>{_output(item)}</div>" for item in output)}</div>'
    if isinstance(output, Mapping):
        share = next((output[key] for key in ("probability", "score") if _is_number(output.get(key))), None)
        rest = {key: value for key, value in output.items() if key not in ("probability", "score")}
        text = _inline(next(iter(rest.values()))) if len(rest) == 1 else _inline(rest)
        if share is None:
            return html.escape(text)
        bar = f'<span class="bar" style="--share:{100 * min(max(share, 0), 1):.1f}%"></span>'
        return f'<div class="candidate"><span>{html.escape(text)}</span>{bar}<small>{share:.1%}</small></div>'
    return html.escape(_inline(output))


def _table_of(tree: Mapping[str, Any]) -> str:
    """Nested keys as --config takes them, one row each; many counts together in one."""
    rows = "".join(
        f"<div><dt>{html.escape(key)}</dt><dd>{html.escape(_inline(value))}</dd></div>" for key, value in _flat(tree)
    )
    return f'<dl class="keys">{rows}</dl>' if rows else ""


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and len(value) > _FEW and all(map(_is_number, value.values())):
            yield f"{prefix}{key}", ", ".join(f"{name} {short(float(count))}" for name, count in value.items())
        elif isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _read(path: Path, wanted: type) -> tuple[Any, str]:
    """The JSON of a file, and a sentence where there is none."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return wanted(), f"There is no {path.name} in this workdir (yet)."
    except ValueError:
        return wanted(), f"{path.name} is not complete JSON; it may be being written."
    if not isinstance(value, wanted):
        return wanted(), f"{path.name} holds a {type(value).__name__}, not a {wanted.__name__}."
    return value, ""


def _read_metrics(path: Path) -> tuple[list[dict[str, Any]], str]:
    """The lines that are a step's object: the last one may be half written."""
    if not path.exists():
        return [], "There is no metrics.jsonl in this workdir (yet)."
    lines, broken = [], 0
    for line in path.read_bytes().splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            broken += 1
            continue
        if isinstance(value, dict) and isinstance(value.get("step"), int):
            lines.append(value)
        else:
            broken += 1
    if not lines:
        return [], "metrics.jsonl has no lines yet."
    return lines, f"{broken} of the lines of metrics.jsonl could not be read and were left out." if broken else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_figure(key: str, value: Any) -> bool:
    return key.split("/")[0] in SPLITS and "/" in key and _is_number(value)


def _rank(key: str) -> tuple[int, int, str]:
    split, measure = key.split("/", 1)
    order = _HEADLINES.index(measure) if measure in _HEADLINES else len(_HEADLINES)
    return -SPLITS.index(split), order, measure


def _duration(seconds: Any) -> str:
    if not _is_number(seconds) or not math.isfinite(seconds):
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _inline(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _words(key: str) -> str:
    return key.replace("/", " ").replace("_", " ")


def _scroll(table: str) -> str:
    return f'<div class="scroll">{table}</div>'


def _note(sentence: str) -> str:
    return f'<p class="note">{html.escape(sentence)}</p>' if sentence else ""


def _section(title: str, body: str, note: str) -> str:
    return f"<section><h2>{title}</h2>{_note(note)}{body or ''}</section>"
