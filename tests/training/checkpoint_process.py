"""A process of its own for test_checkpoint.py: saves in a tight loop until it is killed, or on a given device count.

Usage: checkpoint_process.py {loop | sharded | pair} DIRECTORY [ARGUMENT …]
"""

import itertools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from research.training.checkpoint import Checkpoints
from research.training.restore import restore, restore_latest
from research.training.step_folder import CheckpointDamaged, complete_steps


def loop_trees(step: int) -> tuple[dict, dict]:
    """What the loop saves at a step: arrays that differ from step to step in every element."""
    values = np.random.default_rng(step).standard_normal((2, 20011)).astype(np.float32)
    return {"kernel": jnp.array(values[0])}, {"moment": jnp.array(values[1]), "step": jnp.int32(step)}


def loop(directory: Path) -> None:
    """Waits for a line, then saves step after step from where an earlier process was killed; tells what is complete."""
    print("ready", flush=True)
    sys.stdin.readline()
    steps = complete_steps(directory)
    first = steps[-1] + 1 if steps else 0
    with Checkpoints(directory, about={"model": "loop"}, keep_latest=2) as checkpoints:
        for step in itertools.count(first):
            params, state = loop_trees(step)
            checkpoints.save(step, params=params, state=state, host={"examples_seen": step * 7}, metrics={})
            checkpoints.wait()
            print(step, flush=True)


def sharded_values() -> dict[str, np.ndarray]:
    return {"kernel": np.arange(8 * 16, dtype=np.float32).reshape(8, 16) / 3, "scale": np.arange(8, dtype=np.float32)}


def sharded(directory: Path, save: str) -> None:
    """Restores onto all devices of this process (after saving from them, when told to) and compares every bit."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    by_row = NamedSharding(mesh, PartitionSpec("data"))
    values = sharded_values()
    params = {name: jax.device_put(value, by_row) for name, value in values.items()}
    if save == "save":
        with Checkpoints(directory, about={}) as checkpoints:
            checkpoints.save(1, params=params, state=params, host={}, metrics={})
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=by_row), params)
    restored = restore(directory, 1, params=abstract, state=abstract)
    for tree in (restored.params, restored.state):
        for name, value in values.items():
            assert tree[name].sharding == by_row
            assert len(tree[name].addressable_shards) == jax.device_count()
            np.testing.assert_array_equal(np.asarray(tree[name]), value, strict=True)
    print(f"{jax.device_count()} devices equal", flush=True)


def pair(directory: Path, address: str, index: str) -> None:
    """One of two processes that save, lose a save together, and find damage together."""
    jax.distributed.initialize(address, 2, int(index))
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    by_row = NamedSharding(mesh, PartitionSpec("data"))
    values = sharded_values()
    params = {
        name: jax.make_array_from_callback(value.shape, by_row, lambda rows, value=value: value[rows])
        for name, value in values.items()
    }
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=by_row), params)
    with Checkpoints(directory, about={}, keep_latest=2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, params=params, state=params, host={"step": step}, metrics={})
        checkpoints.wait()
        assert checkpoints.steps() == [2, 3], checkpoints.steps()
        restored = restore_latest(directory, params=abstract, state=abstract, fall_back=False)
        assert restored is not None and restored.host == {"step": 3}
        for shard in restored.params["kernel"].addressable_shards:
            np.testing.assert_array_equal(shard.data, values["kernel"][shard.index])
        multihost_utils.sync_global_devices("damage")
        if index == "0":
            with (directory / "3" / "host.json").open("a") as file:
                file.write(" ")
        multihost_utils.sync_global_devices("damaged")
        try:
            restore(directory, 3, params=abstract, state=abstract)
        except CheckpointDamaged:
            print("damage found", flush=True)
        fallen_back = restore_latest(directory, params=abstract, state=abstract, fall_back=True)
        assert fallen_back is not None and fallen_back.step == 2


if __name__ == "__main__":
    command, folder, *arguments = sys.argv[1:]
    {"loop": loop, "sharded": sharded, "pair": pair}[command](Path(folder), *arguments)
