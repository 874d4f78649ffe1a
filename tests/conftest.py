"""What all tests share: eight virtual CPU devices, strict arrays, checked shapes, a cache of their own."""

import json
import os
import random
import shutil
import tempfile
from pathlib import Path

# Before jax is imported, here and in the processes that tests start.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
# A thread waits in each collective: with one a device, those that others wait for find none left to run on.
os.environ.setdefault("PJRT_NPROC", "64")
_CACHE = tempfile.mkdtemp(prefix="groundwork-tests-")
os.environ["GROUNDWORK_CACHE"] = _CACHE

import jax  # noqa: E402 - after the environment is set
import pytest  # noqa: E402
from absl import flags  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")

# Array shapes in signatures are checked wherever arrays are what is passed.
CHECKED = ("research.ops", "research.objectives", "research.models", "research.metrics", "research.evaluation")
install_import_hook(CHECKED, "beartype.beartype")

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_configure():
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain reads flags


def pytest_unconfigure():
    shutil.rmtree(_CACHE, ignore_errors=True)


def pytest_collection_modifyitems(items):
    """Skips what this machine cannot run, and says why."""
    lacking = {}
    if not REAL_DATA.is_dir():
        lacking["real_data"] = "the folder ../shared/data is not here"
    if jax.default_backend() != "gpu":
        lacking["gpu"] = "jax sees no GPU (run with JAX_PLATFORMS=cuda)"
    for item in items:
        for marker, reason in lacking.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets beside the checkout; ask for it under the marker `real_data`."""
    return REAL_DATA


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """Sixty short documents of made-up sentences, as JSON lines with a label: whether the first word is a number's."""
    numbers, others = ["one", "two", "three", "four", "five"], ["cat", "dog", "tree", "house", "river", "stone"]
    draw = random.Random(7)
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    with path.open("w") as file:
        for index in range(60):
            first = draw.choice(numbers if index % 2 else others)
            words = [first] + [draw.choice(numbers + others) for _ in range(draw.randint(3, 9))]
            record = {"text": " ".join(words) + f" {index}.", "label": "number" if index % 2 else "thing"}
            file.write(json.dumps(record) + "\n")
    return path
