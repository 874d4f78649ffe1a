"""Published weights in and out: a run becomes a folder that `transformers` opens, and such a folder a run.

python -m research.convert --from=PLACE --to=DIR [--step=N] [--verify]

PLACE is the --workdir of a run, or a local folder with config.json, model.safetensors and tokenizer.json (of texts) or
preprocessor_config.json (of images; CLIP has both). It can also be given as it is: to --config.init_from, and
to `predict` as --workdir. --verify runs both sides on the same inputs and prints the largest differences; it needs the
extra `hf`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from research.door import run_door


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="research.convert", allow_abbrev=False)
    parser.add_argument("--from", dest="origin", required=True, type=Path, metavar="PLACE", help="a run, or a folder")
    parser.add_argument("--to", required=True, type=Path, metavar="DIR", help="a new folder")
    parser.add_argument("--step", type=int, default=None, help="a checkpoint of the run (default: the newest)")
    parser.add_argument("--verify", action="store_true", help="compare both sides (extra hf)")
    flags = parser.parse_args(arguments)
    from research.conversion import convert, verify

    published, trained = convert(flags.origin, flags.to, step=flags.step)
    if flags.verify:
        return verify(published, trained)
    return 0


if __name__ == "__main__":
    run_door(main)
