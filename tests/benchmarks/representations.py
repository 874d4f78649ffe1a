"""Pretraining on images, pictures with names, and sounds, one run after another; each is kept as NAME.json beside this.

python tests/benchmarks/representations.py [NAME …]
Without a name all of them; a finished run is not run again, and an unfinished one goes on. `digits_…` and `glyphs_…`
need no data but what the package has; `fsdd_…` reads ../shared/data. The models of digits are the tiny ones of the
tests, trained for longer: they show that an objective learns, not what it can do.
"""

from __future__ import annotations

import argparse

from keep import ROOT, keep, train  # pyright: ignore[reportMissingImports]

Keys = dict[str, object]

DIGITS: Keys = {
    "data.valid_path": "embedded:digits[val]",
    "data.test_path": "embedded:digits[test]",
    "num_steps": 500,
    "batch_size": 64,
    "optimizer.schedule.warmup_steps": 50,
    "evaluation.every": 250,
    "log.every": 50,
}
FSDD: Keys = {
    "data.path": "../shared/data/fsdd/fsdd.npz",
    "data.select": "(speaker!=george,)",
    "data.test_select": "(speaker=george,)",
}

# Of each run the page and what differs from it.
RUNS: dict[str, tuple[str, Keys]] = {
    "digits_mlp": ("pretrain/image_classification.py:digits", {}),
    "digits_simclr": ("pretrain/image_simclr.py:tiny", DIGITS),
    "digits_moco": ("pretrain/image_moco.py:tiny", DIGITS | {"objective.queue_size": 512, "objective.momentum": 0.99}),
    "digits_mae": ("pretrain/image_mae.py:tiny", DIGITS),
    "glyphs_clip": ("pretrain/image_text_clip.py:glyphs", {}),
    "glyphs_siglip": ("pretrain/image_text_siglip.py:glyphs", {}),
    "fsdd_simclr": ("pretrain/audio_simclr.py", FSDD),
}


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(RUNS))
    for name in parser.parse_args().names or RUNS:
        page, keys = RUNS[name]
        train(f"runs/{name}", page.split("/")[0], page, keys)
        keep(name, [ROOT / "runs" / name])


if __name__ == "__main__":
    main()
