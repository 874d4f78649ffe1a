"""Shows what a run will really see, before it runs: files, rows, tokens, repeats, and its first batch read back.

python -m research.inspect --config=FILE[:variant] [--config.key=value …] [--rows=3] [--workdir=DIR] [--debug]

Nothing is written, unless --workdir names a folder: inspect.json there holds all that is shown, and batch.png the first
images of the batch (of sounds their spectrograms), and below them what the first step makes of them.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from research.door import run_door, take_flags

_BAR = 40  # characters of the longest bar


def main(arguments: Sequence[str]) -> int:
    overrides, rest = take_flags(arguments)
    parser = argparse.ArgumentParser(prog="research.inspect", allow_abbrev=False)
    parser.add_argument("--config", required=True, help="FILE[:variant]; single keys by --config.key=value")
    parser.add_argument("--rows", type=int, default=3, help="rows of the first batch to show, the last among them")
    parser.add_argument("--workdir", type=Path, default=None, help="also write inspect.json here, and batch.png")
    flags = parser.parse_args(rest)
    from research.experiment import load_page, open_experiment
    from research.provenance import write_json

    experiment = open_experiment(load_page(flags.config, overrides), say=lambda line: None)
    found = look(experiment, num_rows=flags.rows)
    show(found, Printer(terminal=sys.stdout.isatty()))
    if flags.workdir is not None:
        flags.workdir.mkdir(parents=True, exist_ok=True)
        write_json(flags.workdir / "inspect.json", found)
        if experiment.dataset.spec.image_size or experiment.dataset.spec.sample_rate:
            _write_pictures(flags.workdir / "batch.png", experiment)
    return 0


def look(experiment: Any, *, num_rows: int) -> dict[str, Any]:
    """All that the door shows of an `experiment.Experiment`."""
    from research.data import describe, describe_media
    from research.data.tokenizers import from_json

    dataset, page, data = experiment.dataset, experiment.page, experiment.page.data
    batch = _first_batch(experiment)
    rows = shown_rows(page.batch_size, num_rows)
    keys = {"train": "path", "val": "valid_path", "test": "test_path", "shift": "shift_path"}
    paths = {name: data.get(key, "") for name, key in keys.items()}
    about = {
        "objective": page.objective["name"],
        "files": {name: describe.describe_files(path) for name, path in paths.items() if path},
    }
    if dataset.spec.image_size or dataset.spec.sample_rate:
        describe_split, describe_batch = describe_media.describe_pictures, describe_media.describe_picture_rows
        if dataset.spec.sample_rate:
            describe_split, describe_batch = describe_media.describe_recordings, describe_media.describe_recording_rows
        return about | {
            "splits": {name: describe_split(part, dataset.spec) for name, part in dataset.splits.items()},
            "repeats": describe_media.describe_repeated_media(dataset),
            "batch": describe_batch(batch, dataset.spec, rows=rows),
        }
    tokenizer = from_json(dataset.tokenizer)
    return about | {
        "splits": {name: describe.describe_split(split, dataset.spec) for name, split in dataset.splits.items()},
        "tokens": describe.describe_tokens(dataset, tokenizer),
        "repeats": describe.describe_repeats(dataset, tokenizer),
        "batch": describe.describe_rows(batch, tokenizer, dataset.spec, rows=rows, **_corruption(experiment, batch)),
    }


def shown_rows(batch_size: int, num_rows: int) -> list[int]:
    """The first rows of a batch, and its last."""
    if num_rows < 1:
        raise ValueError(f"--rows={num_rows}; wanted 1 or more")
    return [*range(min(num_rows, batch_size) - 1), batch_size - 1]


def show(found: Mapping[str, Any], printer: Printer) -> None:
    _show_files(found, printer)
    if "tokens" not in found:
        _show_media(found, printer)
        return
    _show_splits(found["splits"], printer)
    for name, split in found["splits"].items():
        bins = [(f"{first}-{last}", count) for first, last, count in split["lengths"]]
        printer.bars(f"{name}: documents by length in tokens (longest {split['longest']:,})", bins)
        tenths = [(f"{10 * i}-{10 * i + 10} %", count) for i, count in enumerate(split["fill_tenths"])]
        printer.bars(f"{name}: rows by fill ({split['fill']:.1%} on average; a sample of rows)", tenths)
        if "labels" in split:
            printer.bars(f"{name}: examples by label", list(split["labels"].items()))
    tokens = found["tokens"]
    printer.table(
        f"most frequent tokens of train ({tokens['never_used']:,} of {tokens['vocab_size']:,} never occur)",
        ("id", "token", "count", "share"),
        [(f"{t['id']}", repr(t["token"]), f"{t['count']:,}", f"{t['share']:.2%}") for t in tokens["most_frequent"]],
    )
    _show_repeats(found["repeats"], printer)
    _show_batch(found, printer)


class Printer:
    """Tables and bars: drawn by rich on a terminal, plain columns otherwise."""

    def __init__(self, *, terminal: bool) -> None:
        self.terminal = terminal

    def heading(self, text: str) -> None:
        print(f"\n{text}\n{'-' * min(len(text), 100)}")

    def line(self, text: str) -> None:
        encoding = sys.stdout.encoding or "utf-8"
        print(text.encode(encoding, "backslashreplace").decode(encoding))

    def table(self, title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        rows = list(rows)
        if not self.terminal:
            self.heading(title)
            widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
            for row in [header, *rows]:
                self.line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
            return
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        drawn = Table(title=title, title_justify="left", title_style="bold")
        for name in header:
            drawn.add_column(name)
        for row in rows:
            drawn.add_row(*map(Text, row))  # as it is: brackets in data are no markup
        Console().print(drawn)

    def bars(self, title: str, counts: Sequence[tuple[str, int]]) -> None:
        most = max([count for _, count in counts], default=0) or 1
        rows = [(name, f"{count:,}", "#" * -(-_BAR * count // most)) for name, count in counts]
        self.table(title, ("", "count", ""), rows)


def _show_files(found: Mapping[str, Any], printer: Printer) -> None:
    rows = []
    for split, sources in found["files"].items():
        for source in sources:
            files = source.get("files", {})
            listed = [(name, f"{size:,} bytes") for name, size in files.items()]
            if len(listed) > 10:
                listed = [*listed[:9], (f"and {len(listed) - 9} more", "")]
            listed = listed or [(source["path"], "")]
            rows += [(split, name, size) for name, size in listed]
            rows += [("", f"  {name}", f"{count:,}") for name, count in source.get("counts", {}).items()]
    printer.table("data", ("split", "file", "size"), rows)


def _show_splits(splits: Mapping[str, Any], printer: Printer) -> None:
    columns = ("rows", "documents", "tokens", "bytes", "bytes_per_token", "unknown", "fill", "segments_per_row")
    rows = []
    for name, split in splits.items():
        values = [split[column] for column in columns]
        rows.append((name, *(f"{value:,}" if isinstance(value, int) else f"{value:.4g}" for value in values)))
    header = tuple(column.replace("_", " ").replace("unknown", "share of <unk>") for column in columns)
    printer.table("splits", ("split", *header), rows)


def _show_media(found: Mapping[str, Any], printer: Printer) -> None:
    """Of images or of sounds."""
    sounds, rows = "seconds" in next(iter(found["splits"].values())), []
    for name, split in found["splits"].items():
        if sounds:
            seconds = [f"{split['seconds'][key]:.2f}" for key in ("min", "mean", "max")]
            loud = f"{split['loudness']:.1f} dB", f"{split['at_full_scale']:,}"
            rows.append((name, f"{split['rows']:,}", f"{split['sample_rate']:,} Hz", *seconds, *loud))
        else:
            values = [" ".join(f"{value:.3f}" for value in split[key]) for key in ("mean", "spread")]
            rows.append((name, f"{split['rows']:,}", " x ".join(map(str, split["shape"])), *values))
    header = ("split", "rows", "image", "mean of each channel", "spread")
    if sounds:
        header = ("split", "rows", "rate", "shortest (s)", "mean (s)", "longest (s)", "loudness", "clips at full scale")
    printer.table("splits", header, rows)
    for name, split in found["splits"].items():
        if "labels" in split:
            printer.bars(f"{name}: examples by label", list(split["labels"].items()))
    _show_repeats(found["repeats"], printer, aside="")
    printer.heading(f"first training batch, as {found['objective']} reads it")
    for row in found["batch"]:
        label = f"  ->  label {row['label']}" if "label" in row else ""
        told = f"{row['seconds']:.2f} s, {row['loudness']:.1f} dB" if sounds else ""
        told = told or f"pixels {row['lowest']} to {row['highest']}, mean {row['mean']:.1f}"
        printer.line(f"row {row['row']}: example {row['example_id']}, {told}{label}")


def _show_repeats(
    repeats: Mapping[str, Any], printer: Printer, *, aside: str = " (case and white space set aside)"
) -> None:
    rows = [(f"shared by {pair}", f"{count:,}", "") for pair, count in repeats["shared_rows"].items()]
    rows.append(("more than once in train", f"{repeats['duplicates_in_train']:,}", ""))
    for each in repeats["most_repeated"]:
        rows.append(("  most repeated", f"{each['times']:,}", _one_line(each["text"], 70)))
    printer.table(f"repeats{aside}", ("", "rows", "text"), rows)


def _show_batch(found: Mapping[str, Any], printer: Printer) -> None:
    printer.heading(f"first training batch, as {found['objective']} sees it")
    for row in found["batch"]:
        label = f"  ->  label {row['label']}" if "label" in row else ""
        label = f"  ->  answer {row['answer']!r}" if "answer" in row else label
        padding = f", {row['padding']} of padding" if row["padding"] else ""
        printer.line(f"row {row['row']}: {len(row['segments'])} segments{padding}{label}")
        for number, segment in enumerate(row["segments"], start=1):
            place = f"segment {number}, tokens {segment['first']}-{segment['last']}"
            if "targets" not in segment:
                predicted = segment["last"] - segment["first"]
                told = found["objective"] == "causal_lm" and "answer" not in segment
                told = f", {predicted} to predict" if told else ""
                printer.line(f"  | {place}{told}")
            else:
                printer.line(f"  | {place}, {len(segment['targets'])} to predict")
            printer.line(f"  |   {_one_line(segment['text'])}")
            if "answer" in segment:
                printer.line(f"  |   to predict of it: {_one_line(segment['answer'])}")
            if segment.get("targets"):
                printer.line("  |   targets: " + ", ".join(map(_target, segment["targets"])))


def _target(each: Mapping[str, str]) -> str:
    """A target, and what stands in its place where that is not the mask."""
    target = repr(each["target"])
    if each["seen"] in ("<mask>", "[MASK]"):
        return target
    return f"{target} (left as it is)" if each["seen"] == each["target"] else f"{target} (seen as {each['seen']!r})"


def _one_line(text: str, most: int = 0) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    most = most or max(20 * shutil.get_terminal_size().columns, 2000)
    return text if len(text) <= most else text[: most - 1] + "…"


def _first_batch(experiment: Any) -> Mapping[str, Any]:
    from research.data.stream import TrainStream

    page = experiment.page
    return TrainStream(
        experiment.dataset.splits["train"].examples, seed=page.seed, batch_size=page.batch_size
    ).batch_at(0)


def _write_pictures(path: Path, experiment: Any) -> None:
    """The first batch's images, or spectrograms, and, below, the views that the objective draws of them at step 0."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from research.data.describe_media import spectrogram_pictures, write_sheet
    from research.objectives.inputs import read_inputs
    from research.training.step import step_keys

    batch, objective = _first_batch(experiment), experiment.objective
    noise, _ = step_keys(experiment.page.seed, jnp.zeros((), jnp.int32))
    held = jax.tree.map(jnp.asarray, dict(batch))
    stacks = [batch["image"] if "image" in batch else np.asarray(read_inputs(objective.model, held)["image"])]
    if hasattr(objective, "views"):
        stacks += [np.asarray(view) for view in objective.views(held, noise)["image"]]
    elif hasattr(objective, "augmented"):
        stacks.append(np.asarray(objective.augmented(held, noise)["image"]))
    elif hasattr(objective, "view"):
        stacks.append(np.asarray(objective.view(held, noise)[0]["image"]))
    if "audio" in batch:
        stacks = [spectrogram_pictures(stack) for stack in stacks]
    write_sheet(path, stacks)
    print(f"{path}: the {'spectrograms' if 'audio' in batch else 'images'}, and below what the step sees")


def _corruption(experiment: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    """What the objective hides of the first batch at step 0, as the training step draws it."""
    if not hasattr(experiment.objective, "corrupt"):
        return {}
    import jax
    import jax.numpy as jnp
    import numpy as np

    from research.training.step import step_keys

    noise, _ = step_keys(experiment.page.seed, jnp.zeros((), jnp.int32))
    seen, chosen = experiment.objective.corrupt(jax.tree.map(jnp.asarray, dict(batch)), noise)
    return {"seen": np.asarray(seen), "chosen": np.asarray(chosen)}


if __name__ == "__main__":
    run_door(main)
