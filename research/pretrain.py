"""Pretrains a model: from scratch, or on from `config.init_from`.

python -m research.pretrain --config=FILE[:variant] --workdir=DIR [--config.key=value …] [--debug]
"""

from __future__ import annotations

from collections.abc import Sequence

from research.door import run_door


def main(arguments: Sequence[str]) -> int:
    from research.training_door import run_training

    return run_training("pretrain", arguments)


if __name__ == "__main__":
    run_door(main)
