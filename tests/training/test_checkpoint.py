"""Checkpoints keep every bit, survive kill -9 and a full disk, and refuse damage."""

import contextlib
import errno
import itertools
import os
import random
import shutil
import socket
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from checkpoint_process import loop_trees

from research.training import restore as reading
from research.training import step_folder
from research.training.checkpoint import Checkpoints, SaveFailed
from research.training.restore import read_about, read_params, restore, restore_latest
from research.training.step_folder import CheckpointDamaged, best_step, complete_steps

ROOT = Path(__file__).parents[2]


def make_params():
    bits = np.random.default_rng(0).integers(0, 2**16, (3, 5), dtype=np.uint16)  # NaN payloads among them
    kernel = jax.lax.bitcast_convert_type(jnp.array(bits), jnp.bfloat16)
    scale = jnp.array([-0.0, np.nan, np.inf, 1e-45, 0.1], jnp.float32)
    return {"layers": {"kernel": kernel, "scale": scale, "nothing": {}}, "embedding": jnp.arange(7.0)}


def make_state():
    return (
        optax.adamw(1e-3).init(make_params()),
        {"step": jnp.int32(2**31 - 1), "key": jax.random.key_data(jax.random.key(3)), "ema": None},
        [jnp.array(True), jnp.array([[2**32 - 1]], jnp.uint32), jnp.array([], jnp.float32).sum()],
    )


def abstract(tree):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree)


def assert_same_bits(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def save_tiny(directory, *steps, metrics=(), **options):
    """Saves steps whose only parameter is the step; returns the abstract trees to restore with."""
    values = dict(zip(steps, metrics, strict=False))
    with Checkpoints(directory, about={"model": "tiny"}, **options) as checkpoints:
        for step in steps:
            named = {"val/loss": values[step]} if step in values else {}
            tree = {"step": jnp.full((3,), step, jnp.int32)}
            checkpoints.save(step, params=tree, state=tree, host={"examples_seen": step * 7}, metrics=named)
    leaf = jax.ShapeDtypeStruct((3,), jnp.int32)
    return {"params": {"step": leaf}, "state": {"step": leaf}}


def run(*arguments, devices=1):
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags}
    script = Path(__file__).with_name("checkpoint_process.py")
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_every_bit_comes_back_in_the_same_containers(tmp_path, capfd):
    params, state = make_params(), make_state()
    host = {"examples_seen": 11, "window": {"loss": [1.1, 2.0]}, "last": None}
    about = {"model": {"width": 5, "blocks": ["b", "a"]}, "tokenizer": "é"}
    with Checkpoints(tmp_path, about=about) as checkpoints:
        checkpoints.save(13, params=params, state=state, host=host, metrics={"val/loss": 1 / 3})
    restored = restore(tmp_path, 13, params=abstract(params), state=abstract(state))
    assert_same_bits(restored.params, params)
    assert_same_bits(restored.state, state)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves((restored.params, restored.state)))
    assert (restored.step, restored.host, restored.metrics, restored.about) == (13, host, {"val/loss": 1 / 3}, about)
    assert read_about(tmp_path, 13) == about
    assert capfd.readouterr() == ("", "")  # Orbax is silent


def test_params_are_read_alone_on_the_host_or_in_part(tmp_path):
    params = make_params()
    with Checkpoints(tmp_path, about={}) as checkpoints:
        checkpoints.save(1, params=params, state={}, host={}, metrics={})
    on_host = read_params(tmp_path, 1)
    assert_same_bits(on_host, params)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(on_host))
    part = {"layers": {"kernel": params["layers"]["kernel"]}}
    encoder = read_params(tmp_path, 1, like=abstract(part))
    assert_same_bits(encoder, part)
    assert isinstance(encoder["layers"]["kernel"], jax.Array)
    with pytest.raises(ValueError, match=r"missing layers/head float32\[2\]"):
        read_params(tmp_path, 1, like={"layers": {"head": jax.ShapeDtypeStruct((2,), jnp.float32)}})


def test_buffers_may_be_donated_as_soon_as_save_returns(tmp_path):
    advance = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)
    tree = advance({"a": jnp.zeros((101, 103)), "b": jnp.zeros((211, 103))})
    leaf_shapes = abstract(tree)
    with Checkpoints(tmp_path, about={}, keep_latest=5) as checkpoints:
        for step in range(5):
            checkpoints.save(step, params=tree, state=(), host={}, metrics={})
            for _ in range(3):
                tree = advance(tree)
    for step in range(5):
        restored = restore(tmp_path, step, params=leaf_shapes, state=())
        for leaf in jax.tree.leaves(restored.params):
            np.testing.assert_array_equal(leaf, 1 + 3 * step)


def test_shards_of_eight_devices_come_back_on_eight_four_and_one(tmp_path):
    assert run("sharded", tmp_path, "save", devices=8).communicate(timeout=60)[0] == "8 devices equal\n"
    fewer = [run("sharded", tmp_path, "restore", devices=devices) for devices in (4, 1)]
    assert [process.communicate(timeout=60)[0] for process in fewer] == ["4 devices equal\n", "1 devices equal\n"]


def test_two_processes_save_prune_and_find_damage_together(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = [run("pair", tmp_path, address, index, devices=2) for index in (0, 1)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert all("damage found" in output for output in outputs)


def test_newest_and_best_are_kept(tmp_path):
    save_tiny(tmp_path, 1, 2, 3, 4, 5, metrics=[3.0, 1.0, 2.0, 4.0, 5.0], keep_latest=2, metric="val/loss")
    assert complete_steps(tmp_path) == [2, 4, 5]  # 5 is the worst of all, and the newest
    assert best_step(tmp_path, metric="val/loss", mode="min") == 2
    save_tiny(tmp_path, 6, 7, metrics=[float("nan"), 9.0], keep_latest=1, keep_best=2, metric="val/loss", mode="max")
    assert complete_steps(tmp_path) == [5, 7]
    with Checkpoints(tmp_path, about={}, metric="val/loss", mode="max") as checkpoints:
        assert (checkpoints.steps(), checkpoints.latest(), checkpoints.best()) == ([5, 7], 7, 7)


def test_steps_without_the_metric_are_never_best(tmp_path):
    save_tiny(tmp_path, 1, 2, keep_latest=1)
    assert complete_steps(tmp_path) == [2]
    assert best_step(tmp_path, metric="val/loss", mode="min") is None
    unmeasured = pytest.raises(ValueError, match="'val/loss' is not measured; use one of val/accuracy")
    with Checkpoints(tmp_path, about={}, metric="val/loss") as checkpoints, unmeasured:
        checkpoints.save(3, params={}, state={}, host={}, metrics={"val/accuracy": 0.5})


def test_only_the_writer_removes_what_was_left_incomplete(tmp_path):
    trees = save_tiny(tmp_path, 1, 2)
    (tmp_path / "2" / "checksums.json").unlink()
    (tmp_path / "3.orbax-checkpoint-tmp" / "params").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    restored = restore_latest(tmp_path, **trees, fall_back=False)
    assert restored is not None and restored.step == 1
    assert sorted(os.listdir(tmp_path)) == ["1", "2", "3.orbax-checkpoint-tmp", "notes"]
    Checkpoints(tmp_path, about={}).close()
    assert sorted(os.listdir(tmp_path)) == ["1", "notes"]


def test_nothing_to_restore_is_none_and_an_unknown_step_is_refused(tmp_path):
    trees = save_tiny(tmp_path, 4, 9)
    assert restore_latest(tmp_path / "elsewhere", **trees, fall_back=False) is None
    with pytest.raises(ValueError, match=r"no complete checkpoint of step 5 .* there are: 4, 9"):
        restore(tmp_path, 5, **trees)


def test_one_flipped_bit_in_any_file_is_refused(tmp_path):
    trees = save_tiny(tmp_path, 6)
    files = sorted(path for path in (tmp_path / "6").rglob("*") if path.is_file())
    assert len(files) > 10
    source = random.Random(0)
    for path in files:
        good = path.read_bytes()
        bad = bytearray(good or b"\0")  # a file that was empty gains a byte
        bad[source.randrange(len(bad))] ^= 1 << source.randrange(8)
        path.write_bytes(bad)
        with pytest.raises(CheckpointDamaged, match=path.name):
            restore(tmp_path, 6, **trees)
        path.write_bytes(good)
    restore(tmp_path, 6, **trees)


def test_no_flip_in_the_checksums_themselves_passes(tmp_path):
    save_tiny(tmp_path, 6)
    path = tmp_path / "6" / "checksums.json"
    good = path.read_bytes()
    for position, bit in itertools.product(range(0, len(good), 37), range(8)):
        bad = bytearray(good)
        bad[position] ^= 1 << bit
        path.write_bytes(bad)
        assert step_folder.find_damage(tmp_path / "6"), (position, bit)


@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_going_back_from_a_damaged_checkpoint_happens_only_when_told(tmp_path, damage):
    trees = save_tiny(tmp_path, 20, 40)
    path = next(path for path in (tmp_path / "40").rglob("d/*") if path.is_file())
    path.write_bytes(path.read_bytes()[:-1]) if damage == "truncate" else path.unlink()
    with pytest.raises(CheckpointDamaged, match=rf"checkpoint 40 .*{path.name}.*fall_back=true.*back to step 20"):
        restore_latest(tmp_path, **trees, fall_back=False)
    restored = restore_latest(tmp_path, **trees, fall_back=True)
    assert restored is not None and restored.step == 20 and restored.params["step"].tolist() == [20] * 3
    save_tiny(tmp_path, 30, keep_latest=3)  # the run goes on from 20: what is damaged gives way
    assert complete_steps(tmp_path) == [20, 30]


def test_falling_back_stops_where_no_checkpoint_is_whole(tmp_path):
    trees = save_tiny(tmp_path, 1, 2)
    for step in (1, 2):
        (tmp_path / str(step) / "host.json").write_text("{}")
    with pytest.raises(CheckpointDamaged, match="checkpoint 1 .*host.json.*no earlier one"):
        restore_latest(tmp_path, **trees, fall_back=True)


def test_leaves_that_do_not_fit_are_all_listed(tmp_path):
    params = {"a": jnp.zeros((3, 5)), "b": {"c": jnp.zeros(7)}, "d": jnp.zeros(2)}
    with Checkpoints(tmp_path, about={}) as checkpoints:
        checkpoints.save(1, params=params, state={}, host={}, metrics={})
    wanted = {
        "a": jax.ShapeDtypeStruct((5, 3), jnp.float32),
        "b": {"e": jax.ShapeDtypeStruct((7,), jnp.float32)},
        "d": jax.ShapeDtypeStruct((2,), jnp.bfloat16),
    }
    with pytest.raises(ValueError, match="do not fit") as caught:
        restore(tmp_path, 1, params=wanted, state={})
    for problem in (
        r"a is float32[3,5], wanted float32[5,3]",
        "extra b/c float32[7]",
        "missing b/e float32[7]",
        "d is float32[2], wanted bfloat16[2]",
    ):
        assert problem in str(caught.value)


def test_a_leaf_that_orbax_leaves_out_is_noticed(tmp_path, monkeypatch):
    trees = save_tiny(tmp_path, 1)
    monkeypatch.setattr(reading, "_check_leaves", lambda *arguments, **options: None)
    trees["state"]["moment"] = jax.ShapeDtypeStruct((2,), jnp.float32)
    with pytest.raises(ValueError, match="state moment came back as ShapeDtypeStruct"):
        restore(tmp_path, 1, **trees)


@pytest.mark.parametrize(
    "params",
    [
        {"a": 1.0},
        {"a": np.zeros(3)},
        {"a": jnp.zeros((0, 3))},
        {"a": jax.random.key(0)},
        jnp.zeros(3),
        {"a": {"b": jnp.zeros(2)}, "a.b": jnp.zeros(2)},
    ],
    ids=["number", "numpy", "no elements", "typed key", "no name", "same name twice"],
)
def test_what_cannot_be_stored_is_refused(tmp_path, params):
    with Checkpoints(tmp_path, about={}) as checkpoints, pytest.raises(ValueError, match="params"):
        checkpoints.save(1, params=params, state={}, host={}, metrics={})
    assert os.listdir(tmp_path) == []


def test_wrong_arguments_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    choices: list[tuple[dict[str, Any], str]] = [
        ({"keep_latest": 0}, "keep_latest=0"),
        ({"mode": "least"}, "mode='least'"),
        ({"about": {"a": object()}}, "about is not JSON"),
        ({"directory": tmp_path / "file" / "below"}, "cannot keep checkpoints"),
    ]
    for options, message in choices:
        with pytest.raises(ValueError, match=message):
            Checkpoints(**({"directory": tmp_path, "about": {}} | options))
    save_tiny(tmp_path, 3)
    with pytest.raises(ValueError, match="checkpoint 3 .* already"):
        save_tiny(tmp_path, 3)
    with pytest.raises(ValueError, match="checkpoint 3 .* already"):
        save_tiny(tmp_path, 2)
    assert complete_steps(tmp_path) == [3]


def test_a_save_that_cannot_fit_is_refused_before_it_starts(tmp_path, monkeypatch):
    trees = save_tiny(tmp_path, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=25))
    with pytest.raises(SaveFailed, match=r"checkpoint 2 .* it needs .* are free; checkpoint 1 is intact"):
        save_tiny(tmp_path, 2)  # 24 bytes of arrays, and a tenth
    assert os.listdir(tmp_path) == ["1"]
    restore(tmp_path, 1, **trees)


def test_an_error_in_the_background_is_raised_once_and_the_next_save_works(tmp_path, monkeypatch):
    trees = save_tiny(tmp_path, 1)
    full = OSError(errno.ENOSPC, "No space left on device")
    tree = {"step": jnp.full((3,), 3, jnp.int32)}
    with Checkpoints(tmp_path, about={}) as checkpoints:
        with monkeypatch.context() as patch:
            patch.setattr(step_folder.os, "fsync", lambda descriptor: (_ for _ in ()).throw(full))
            checkpoints.save(2, params=tree, state=tree, host={}, metrics={})
            with pytest.raises(SaveFailed, match="checkpoint 2 .* the disk is full; checkpoint 1 is intact"):
                checkpoints.save(3, params=tree, state=tree, host={}, metrics={})
        assert sorted(os.listdir(tmp_path)) == ["1"]
        checkpoints.save(3, params=tree, state=tree, host={}, metrics={})
        checkpoints.wait()
        assert checkpoints.steps() == [1, 3]
    restore(tmp_path, 3, **trees)


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small file system is not permitted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_fills_up_during_a_save_leaves_the_one_before(small_disk, monkeypatch):
    directory = small_disk / "checkpoints"
    noise = jax.random.normal(jax.random.key(0), (100_003,))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1e9))  # it fills up afterwards
    with Checkpoints(directory, about={}) as checkpoints:
        checkpoints.save(1, params={"a": noise[:5003]}, state={}, host={}, metrics={})
        checkpoints.save(2, params={"a": noise}, state={"b": noise, "c": noise + 1}, host={}, metrics={})
        with pytest.raises(SaveFailed, match="checkpoint 2 .* the disk is full; checkpoint 1 is intact"):
            checkpoints.wait()
        assert checkpoints.steps() == [1]
    assert_same_bits(read_params(directory, 1), {"a": noise[:5003]})
    Checkpoints(directory, about={}).close()
    assert os.listdir(directory) == ["1"]


def test_kill_9_at_any_moment_never_loses_a_complete_checkpoint(tmp_path):
    moments = random.Random(0)
    steps, hit_a_save = [], 0
    with contextlib.ExitStack() as ended:
        processes = [ended.enter_context(run("loop", tmp_path)) for _ in range(6)]  # imports side by side
        for process in processes:
            ended.callback(process.kill)
        for process in processes:
            assert process.stdin is not None and process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.stdin.write("go\n")
            process.stdin.flush()
            assert process.stdout.readline().strip().isdecimal()  # its first step is complete
            time.sleep(moments.uniform(0, 0.3))
            process.kill()
            told = [int(line) for line in process.stdout.read().split()]
            process.wait()
            steps = complete_steps(tmp_path)
            hit_a_save += len(os.listdir(tmp_path)) > len(steps)
            assert set(told[-1:]) <= set(steps)
            for step in steps:
                params, state = loop_trees(step)
                restored = restore(tmp_path, step, params=abstract(params), state=abstract(state))
                assert_same_bits((restored.params, restored.state), (params, state))
                assert restored.host == {"examples_seen": step * 7}
    assert len(steps) in (2, 3)  # three when killed after a seal, before the oldest was removed
    assert hit_a_save >= 1
