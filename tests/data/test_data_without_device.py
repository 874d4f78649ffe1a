"""Data reads batches on a machine where jax finds no device."""

import os
import subprocess
import sys
from pathlib import Path

from tests.media_files import encoded, pictures, recordings, wav, write_folder

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
for block in (
    {"name": "image_classification", "path": sys.argv[2], "size": 5, "valid_fraction": 0.3},
    {"name": "audio_classification", "path": sys.argv[3], "sample_rate": 8000, "seconds": 0.001, "valid_fraction": 0.3},
):
    splits = build(block, DATA, kind="data").splits
    batch = next(TrainStream(splits["train"].examples, seed=0, batch_size=3).batches())
    print(sorted((key, values.shape) for key, values in batch.items()))

import jax

try:
    jax.devices()
except RuntimeError:
    print("no device")
"""


def test_a_batch_is_read_without_a_device(tmp_path):
    (tmp_path / "tiny.txt").write_text("a line of text\n" * 29)
    environment = os.environ | {"JAX_PLATFORMS": "nonesuch", "GROUNDWORK_CACHE": str(tmp_path / "cache")}
    names = [f"{'ab'[row % 2]}/{row}" for row in range(11)]
    images = write_folder(tmp_path / "images", map(encoded, pictures(11)), [f"{name}.png" for name in names])
    audio = write_folder(tmp_path / "audio", map(wav, recordings([7] * 11)), [f"{name}.wav" for name in names])
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "tiny.txt"), images, audio]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    shapes = "[('example_id', (3,)), ('positions', (3, 13)), ('segment_ids', (3, 13)), ('tokens', (3, 13))]"
    of_images = "[('example_id', (3,)), ('image', (3, 5, 5, 3)), ('label', (3,))]"
    of_audio = "[('audio', (3, 8)), ('audio_length', (3,)), ('example_id', (3,)), ('label', (3,))]"
    assert done.stdout.splitlines() == [shapes, "4", of_images, of_audio, "no device"]
