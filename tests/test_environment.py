"""The tuned environment: what is set, what the user keeps, and that a door starts once more and no oftener."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from research import environment

ROOT = Path(__file__).resolve().parents[1]

# Says what its process was started with, how often, and what jax then sees.
DOOR = """
import json, os, sys
with open(sys.argv[1], "a") as starts:
    starts.write("start\\n")
from research.environment import tune
tune()
import jax
print(json.dumps({
    "arguments": sys.argv[1:],
    "input": sys.stdin.read(),
    "prefix": sys.prefix,
    "tunables": os.environ.get("GLIBC_TUNABLES"),
    "cache": jax.config.jax_compilation_cache_dir,
    "seconds": jax.config.jax_persistent_cache_min_compile_time_secs,
    "backend": jax.default_backend(),
    "devices": jax.device_count(),
}))
"""


def run_door(tmp_path, code=DOOR, **variables):
    tmp_path.mkdir(exist_ok=True)
    starts = tmp_path / "starts.txt"
    dropped = (environment.MARK, "GLIBC_TUNABLES", "XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR", "GROUNDWORK_CACHE")
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    done = subprocess.run(
        [sys.executable, "-c", code, str(starts), "--config.a=b c"],
        env=kept | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | variables,
        input="from standard input",
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    return json.loads(done.stdout), starts.read_text().count("start")


def test_door_starts_once_more_with_the_tuned_environment(tmp_path):
    seen, num_starts = run_door(tmp_path, GROUNDWORK_CACHE=str(tmp_path / "cache"))
    assert num_starts == 2
    assert seen["arguments"] == [str(tmp_path / "starts.txt"), "--config.a=b c"]
    assert seen["input"] == "from standard input"
    assert seen["prefix"] == sys.prefix
    assert seen["cache"] == str(tmp_path / "cache" / "xla")
    assert seen["seconds"] == 0
    assert seen["backend"] == "cpu"
    if sys.platform == "linux":
        assert seen["tunables"] == "glibc.malloc.hugetlb=1"


def test_what_the_user_sets_wins(tmp_path):
    own = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0", "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "own")}
    seen, _ = run_door(tmp_path, **own)
    assert (seen["tunables"], seen["cache"]) == tuple(own.values())


def test_a_door_may_ask_for_virtual_devices_where_the_user_has_not(tmp_path):
    asking = DOOR.replace("tune()", "tune(virtual_devices=3)")
    assert run_door(tmp_path / "a", asking)[0]["devices"] == 3
    own = "--xla_force_host_platform_device_count=2"
    assert run_door(tmp_path / "b", asking, XLA_FLAGS=own)[0]["devices"] == 2


def test_mark_switches_tuning_off(tmp_path):
    seen, num_starts = run_door(tmp_path, GROUNDWORK_TUNED="1")
    assert num_starts == 1
    assert seen["tunables"] is None


def test_tune_leaves_a_process_alone_that_has_imported_jax(monkeypatch):
    import jax  # noqa: F401 - what makes this process one to leave alone

    monkeypatch.delenv(environment.MARK, raising=False)
    monkeypatch.setattr(os, "execve", lambda *arguments: pytest.fail("started again"))
    environment.tune()


def test_environment_imports_nothing_but_the_standard_library():
    code = "import sys; from research import environment; print([m for m in sys.modules if m in ('jax', 'numpy')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("named", "expected"), [("cpu", "cpu"), ("cuda", "gpu"), ("cuda,cpu", "gpu"), ("tpu", "tpu"), ("proxy", "proxy")]
)
def test_named_platform_wins_over_device_files(monkeypatch, named, expected):
    monkeypatch.setattr(environment.glob, "glob", lambda pattern: [pattern])
    assert environment.platform({"JAX_PLATFORMS": named}) == expected


@pytest.mark.parametrize(
    ("present", "expected"),
    [("/dev/nvidia", "gpu"), ("/dev/kfd", "gpu"), ("/dev/accel", "tpu"), ("/dev/vfio", "tpu"), ("nothing", "cpu")],
)
def test_device_files_tell_the_platform_on_linux(monkeypatch, present, expected):
    monkeypatch.setattr(environment.sys, "platform", "linux")
    monkeypatch.setattr(environment.glob, "glob", lambda pattern: [pattern] if pattern.startswith(present) else [])
    assert environment.platform({}) == expected


def test_platform_is_unknown_away_from_linux(monkeypatch):
    monkeypatch.setattr(environment.sys, "platform", "darwin")
    assert environment.platform({}) == ""


def test_only_the_cpu_is_named_and_given_huge_pages():
    assert {"JAX_PLATFORMS", "GLIBC_TUNABLES"}.isdisjoint(environment.defaults({}, "gpu"))
    assert environment.defaults({}, "cpu")["JAX_PLATFORMS"] == "cpu"
