"""What all tests share: eight virtual CPU devices, strict arrays, checked shapes, a cache of their own."""

import os
import shutil
import tempfile
from pathlib import Path

# Before jax is imported, here and in the processes that tests start.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
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
