"""Data reads batches on a machine where jax finds no device."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from research.build import build
from research.data import DATA
from research.data.stream import TrainStream, eval_batches

block = {"name": "text", "path": sys.argv[1], "length": 13, "valid_fraction": 0.3, "tokenizer": {"name": "byte"}}
splits = build(block, DATA, kind="data").splits
batch = next(TrainStream(splits["train"].examples, seed=0, batch_size=3).batches())
print(sorted((key, values.shape) for key, values in batch.items()))
print(len(list(eval_batches(splits["val"].examples, batch_size=3))))

import jax

try:
    jax.devices()
except RuntimeError:
    print("no device")
"""


def test_a_batch_is_read_without_a_device(tmp_path):
    (tmp_path / "tiny.txt").write_text("a line of text\n" * 29)
    environment = os.environ | {"JAX_PLATFORMS": "nonesuch", "GROUNDWORK_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "tiny.txt")]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    shapes = "[('example_id', (3,)), ('positions', (3, 13)), ('segment_ids', (3, 13)), ('tokens', (3, 13))]"
    assert done.stdout.splitlines() == [shapes, "4", "no device"]
