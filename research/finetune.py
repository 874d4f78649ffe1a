"""Finetunes the model of a finished run (`config.init_from`) with a fresh head; `--config.weights=scratch` is its twin.

python -m research.finetune --config=FILE[:variant] --workdir=DIR [--config.key=value …] [--debug]
"""

from __future__ import annotations

from collections.abc import Sequence

from research.door import run_door


def main(arguments: Sequence[str]) -> int:
    from research.training_door import run_training

    return run_training("finetune", arguments)


if __name__ == "__main__":
    run_door(main)
