"""The doctor on machines that are not here: what each has wrong is said, with the command that mends it."""

import json
from dataclasses import replace

import pytest

from research import doctor as door
from research.checks import device_probe, doctor
from research.checks.device_probe import Device, Probe
from research.checks.machine import CHECKOUT, Facts, Folder, Gpu
from research.checks.memory import Memory
from research.checks.packages import read_pins
from tests.pages import call

CONSTRAINTS = (CHECKOUT / "constraints.txt").read_text()
PINS = read_pins(CONSTRAINTS, "3.11.7")
PACKAGES = {name: pin for name, pin in PINS.items() if not name.startswith(("jax-cuda", "libtpu", "torch", "trans"))}
LIBTPU = PINS["libtpu"].rpartition(".")[0] + ".*"
CPU = Probe((Device("cpu", "cpu"),), flops={"float32": 2e11, "bfloat16": 1e11, "float16": 1e10})
V100 = Gpu("Tesla V100-SXM2-16GB", 16 * 2**30, 0, "7.0")
T4 = Gpu("Tesla T4", 15 * 2**30, 0, "7.5")
H100 = Gpu("NVIDIA H100 80GB HBM3", 80 * 2**30, 0, "9.0")


def wheels(cuda, version=PINS["jaxlib"]):
    return {"pip": "25.3", f"jax-cuda{cuda}-plugin": version, f"jax-cuda{cuda}-pjrt": version}


def machine(*, versions=None, **changes) -> Facts:
    """A machine with which nothing is wrong, but for the changes."""
    facts = Facts(
        python="3.11.7",
        constraints=CONSTRAINTS,
        versions=PACKAGES | {"pip": "25.3"} | (versions or {}),
        own_requirements=["optax<0.3,>=0.2.8", 'torch>=2.13; extra == "hf"'],
        jax_requirements=[f"jaxlib<={PINS['jaxlib']}", f'libtpu=={LIBTPU}; extra == "tpu"'],
        environment={},
        workdir=Folder("runs", "/home/someone/runs", 10**12),
        cache=Folder("/cache", "/cache", 10**12),
        memory=Memory(64 * 10**9, 60 * 10**9),
        shared_memory=32 * 10**9,
        open_files=65536,
        probe=CPU,
    )
    return replace(facts, **changes)


def with_gpus(*gpus, cuda=12, driver="580.65.06", probe=None, **changes) -> Facts:
    device = Device(gpus[0].name, "gpu", 12 * 10**9, gpus[0].compute_capability)
    seen = Probe((device,) * len(gpus), flops={"float32": 1e13}, total=sum(range(1, len(gpus) + 1)))
    files = {"nvidia": [f"/dev/nvidia{index}" for index in range(len(gpus))]}
    changes.setdefault("versions", wheels(cuda))
    return machine(gpus=gpus, driver=driver, device_files=files, probe=probe or seen, **changes)


def amiss(facts, check=None):
    """What is not ok, or of that the one finding of this check."""
    found = [finding for finding in doctor.examine(facts) if finding.verdict != "ok"]
    if check is None:
        return found
    (finding,) = [finding for finding in found if finding.check == check]
    return finding


def found_of(facts, check):
    return next(finding for finding in doctor.examine(facts) if finding.check == check)


def test_a_sound_machine_has_nothing_amiss():
    assert amiss(machine()) == []
    sound = Probe((Device("NVIDIA H100 80GB HBM3", "gpu", 6 * 10**10, "9.0"),) * 2, flops={"bfloat16": 7e14}, total=3)
    for cuda in (12, 13):
        assert amiss(with_gpus(H100, H100, cuda=cuda, probe=sound)) == []


def test_python_outside_the_tested_ones_is_wrong():
    found = amiss(machine(python="3.14.0", constraints=""), "Python")
    assert found.verdict == "wrong" and "3.11 to 3.13" in found.advice and "launch/local.sh" in found.command


def test_a_version_off_its_pin_is_named_with_the_pin():
    found = amiss(machine(versions={"optax": "0.2.9"}), "optax")
    assert found.verdict == "warning" and PINS["optax"] in found.advice
    assert found.command == "python -m pip install -c constraints.txt optax"
    found = amiss(machine(versions={"optax": "0.3.1"}), "optax")
    assert found.verdict == "wrong" and "pyproject.toml asks for <0.3,>=0.2.8" in found.advice


def test_missing_and_other_packages_are_told():
    without = machine()
    versions = {name: version for name, version in without.versions.items() if name not in ("grain", "pip")}
    found = amiss(replace(without, versions=versions), "grain")
    assert found.verdict == "wrong" and found.command == "uv pip install -c constraints.txt -e ."
    found = amiss(machine(versions={"rich": "14.0.0", "torch": "2.13.0+cpu"}), "other packages")
    assert found.found == f"rich 14.0.0 (pinned {PINS['rich']})" and found.command.endswith("constraints.txt rich")


def test_pins_follow_the_version_of_python():
    text = '# pins\nml_dtypes==0.6.0\njax==0.10.2 ; python_version < "3.12"\njax==0.11.2 ; python_version >= "3.12"\n'
    assert read_pins(text, "3.11.7") == {"ml-dtypes": "0.6.0", "jax": "0.10.2"}
    assert read_pins(text, "3.13.0") == {"ml-dtypes": "0.6.0", "jax": "0.11.2"}


def test_jaxlib_that_jax_does_not_take_is_wrong():
    found = amiss(machine(versions={"jaxlib": "9.0"}), "jaxlib for jax")
    assert found.verdict == "wrong" and "jax jaxlib" in found.command


def test_v100_with_wheels_for_cuda_13_is_told_to_take_12():
    found = amiss(with_gpus(V100, cuda=13), "compute capability")
    assert found.verdict == "wrong" and "need 7.5" in found.advice and "CUDA 12 run on this GPU" in found.advice
    assert found.command == (
        "python -m pip uninstall -y jax-cuda13-plugin jax-cuda13-pjrt"
        " && python -m pip install -c constraints.txt -e '.[cuda12]'"
    )


def test_v100_needs_an_older_cudnn():
    versions = wheels(12) | {"nvidia-cudnn-cu12": "9.24.0.43"}
    found = amiss(with_gpus(V100, versions=versions), "cuDNN")
    assert found.verdict == "wrong" and "nvidia-cudnn-cu12==9.10.2.21" in found.command
    sound = with_gpus(V100, versions=versions | {"nvidia-cudnn-cu12": "9.10.2.21"})
    assert "cuDNN" not in {finding.check for finding in amiss(sound)}


@pytest.mark.parametrize(
    ("driver", "cuda", "words", "command"),
    [
        ("470.82.01", 12, "need driver 525", "ubuntu-drivers"),
        ("470.82.01", 13, "need driver 580", "ubuntu-drivers"),
        ("550.54.15", 13, "those for CUDA 12 run on this one", "'.[cuda12]'"),
    ],
)
def test_a_driver_too_old_for_the_wheels_is_wrong(driver, cuda, words, command):
    found = amiss(with_gpus(H100, cuda=cuda, driver=driver), "NVIDIA driver")
    assert found.verdict == "wrong" and words in found.advice and command in found.command


def test_turing_is_told_what_auto_computes_in():
    found = amiss(with_gpus(T4), "compute capability")
    assert found.verdict == "warning" and "no bfloat16 units" in found.found
    assert "dtype=auto computes in float32" in found.advice and found.command.endswith(" --config.dtype=float32")


def test_wheels_of_another_version_or_of_both_cudas_are_wrong():
    found = amiss(with_gpus(H100, versions=wheels(12, "0.9.0")), "CUDA wheels")
    assert found.verdict == "wrong" and PINS["jaxlib"] in found.advice and "'.[cuda12]'" in found.command
    both = with_gpus(H100, versions=wheels(12) | wheels(13), driver="550.54.15")
    assert "uninstall -y jax-cuda13-plugin" in amiss(both, "CUDA wheels").command


def test_libtpu_newer_than_jax_asks_for_is_wrong():
    found = amiss(machine(versions={"libtpu": "9.0"}), "libtpu")
    assert found.verdict == "wrong" and f"libtpu=={LIBTPU}" in found.advice
    assert found.command == "python -m pip install -c constraints.txt libtpu"
    assert "compiling ahead" in found_of(machine(versions={"libtpu": PINS["libtpu"]}), "libtpu").found


def test_a_gpu_that_jax_does_not_see_is_wrong_and_the_reason_is_named():
    bare = with_gpus(H100, versions={"pip": "25.3"}, probe=CPU)
    found = amiss(bare, "devices of jax")
    assert found.verdict == "wrong" and "CUDA wheels are not installed" in found.advice
    assert found.command == "python -m pip install -c constraints.txt -e '.[cuda13]'"
    found = amiss(with_gpus(H100, probe=CPU), "devices of jax")
    assert found.command.startswith("JAX_PLATFORMS=cuda python -c")
    told = replace(CPU, complaint="Unable to initialize backend 'cuda': CUDA_ERROR_NO_DEVICE")
    assert "CUDA_ERROR_NO_DEVICE" in amiss(with_gpus(H100, probe=told), "devices of jax").advice
    kept = with_gpus(H100, probe=CPU, environment={"JAX_PLATFORMS": "cpu"})
    assert amiss(kept, "devices of jax").command == amiss(kept, "JAX_PLATFORMS").command == "unset JAX_PLATFORMS"


def test_hidden_and_lost_gpus_are_counted():
    one = Probe((Device("NVIDIA H100 80GB HBM3", "gpu", 0, "9.0"),))
    assert amiss(with_gpus(H100, H100, probe=one), "devices of jax").verdict == "wrong"
    some = with_gpus(H100, H100, probe=one, environment={"CUDA_VISIBLE_DEVICES": "1"})
    assert [finding.verdict for finding in amiss(some)] == ["warning"]
    none = with_gpus(H100, probe=CPU, environment={"CUDA_VISIBLE_DEVICES": ""})
    assert amiss(none, "CUDA_VISIBLE_DEVICES").verdict == "wrong"


def test_a_tpu_without_libtpu_or_held_by_another_process_is_wrong():
    files = {"tpu": ["/dev/accel0"]}
    assert "'.[tpu]'" in amiss(machine(device_files=files), "libtpu").command
    held = machine(device_files=files, versions={"libtpu": PINS["libtpu"]}, tpu_holders=[4711])
    assert amiss(held, "TPU lock").command == "kill 4711"
    locked = replace(held, tpu_holders=[], tpu_lock_error="it belongs to another user")
    assert amiss(locked, "TPU lock").command == "sudo rm /tmp/libtpu_lockfile"


def test_busy_memory_and_a_slow_gpu_are_warnings():
    found = amiss(with_gpus(replace(H100, used=60 * 2**30)), "GPU memory")
    assert found.verdict == "warning" and "64.4 of 85.9 GB" in found.found and "nvidia-smi" in found.command
    slow = Probe((Device("NVIDIA H100 80GB HBM3", "gpu", 0, "9.0"),), flops={"bfloat16": 2e14})
    found = amiss(with_gpus(H100, probe=slow), "speed")
    assert found.verdict == "warning" and "20% of the peak of 989.4 TFLOP/s in bfloat16" in found.found


@pytest.mark.parametrize("total", [None, 4.0])
def test_a_missing_or_wrong_sum_over_devices_is_wrong(total):
    two = Probe((Device("NVIDIA H100 80GB HBM3", "gpu", 0, "9.0"),) * 2, total=total)
    found = amiss(with_gpus(H100, H100, probe=two), "sum over devices")
    assert found.verdict == "wrong" and "it should be 3" in found.advice and "NCCL_DEBUG=INFO" in found.command
    hung = replace(two, total=None, error="no answer in 180 seconds", failed_at="a sum")
    assert amiss(with_gpus(H100, H100, probe=hung), "sum over devices").command.endswith(" --config.mesh.devices=1")


def test_a_type_that_a_device_refuses_is_a_warning():
    found = amiss(machine(probe=replace(CPU, refused={"float16": "Unsupported element type"})), "types")
    assert found.verdict == "warning" and found.found == "float16: Unsupported element type"


def test_a_cpu_that_is_faster_in_bfloat16_is_told_the_flag():
    fast = machine(probe=replace(CPU, flops={"float32": 1e11, "bfloat16": 6e11}), cpu_flags=frozenset({"amx_bf16"}))
    assert "this CPU has amx_bf16: --config.matmul_dtype=bfloat16" in found_of(fast, "types").found
    assert "matmul_dtype" not in found_of(machine(), "types").found


def test_jax_that_does_not_start_is_told_with_what_may_mend_it():
    failed = Probe(error="Unknown flag in XLA_FLAGS: --xla_foo", failed_at="the first contact")
    found = amiss(machine(probe=failed, environment={"XLA_FLAGS": "--xla_foo"}), "jax")
    assert found.verdict == "wrong" and found.command == "unset XLA_FLAGS"
    nowhere = machine(probe=replace(failed, error="AssertionError"), environment={"JAX_PLATFORMS": "cuda"})
    assert amiss(nowhere, "jax").command == "unset JAX_PLATFORMS"
    silent = machine(device_files={"tpu": ["/dev/accel0"]}, probe=replace(failed, error="no answer in 180 seconds"))
    assert "--worker=all" in amiss(silent, "jax").command


def test_switches_that_slow_every_step_are_warnings():
    assert amiss(machine(environment={"JAX_DISABLE_JIT": "1"}), "JAX_DISABLE_JIT").command == "unset JAX_DISABLE_JIT"
    assert amiss(machine(environment={"JAX_ENABLE_X64": "false"})) == []


def test_an_unwritable_folder_is_wrong():
    found = amiss(machine(workdir=Folder("/mine", "/mine", 10**12, "Permission denied")), "workdir")
    assert found.verdict == "wrong" and found.found == "/mine: Permission denied" and "--workdir=" in found.command
    found = amiss(machine(cache=Folder("/cache", "/cache", 10**12, "Read-only file system")), "cache")
    assert found.command == "export GROUNDWORK_CACHE=FOLDER"


@pytest.mark.parametrize(("free", "verdict"), [(10**8, "wrong"), (5 * 10**9, "warning")])
def test_low_disk_and_memory_are_told(free, verdict):
    found = amiss(machine(workdir=Folder("runs", "/w", free)), "workdir")
    assert found.verdict == verdict and found.command.startswith("du -xh --max-depth=1 /w ")
    memory = Memory(64 * 10**9, 60 * 10**9, limit=8 * 10**9, used_of_limit=8 * 10**9 - free // 2)
    assert amiss(machine(memory=memory), "memory").verdict == verdict


def test_few_files_and_little_shared_memory_are_warnings():
    assert amiss(machine(open_files=256), "open files").command == "ulimit -n 4096"
    assert "--shm-size" in amiss(with_gpus(H100, H100, shared_memory=64 * 2**20), "/dev/shm").command
    assert amiss(machine(shared_memory=64 * 2**20)) == []


def test_what_is_wrong_comes_again_below_the_table_and_sets_the_exit_code():
    facts = machine(versions={"libtpu": "9.0"}, open_files=256)
    findings = doctor.examine(facts)
    lines = list(doctor.table(findings))
    assert lines[0].split() == ["check", "verdict", "found"]
    assert lines.index("wrong: libtpu: 9.0") < lines.index("warning: open files: at most 256")
    assert "  $ python -m pip install -c constraints.txt libtpu" in lines
    assert lines[-1].endswith("1 to look at, 1 wrong")
    assert doctor.exit_code(findings) == 1
    assert doctor.exit_code(doctor.examine(machine(open_files=256))) == 0
    assert json.loads(json.dumps(doctor.as_json(findings, facts)))["facts"]["open_files"] == 256


def test_the_door_examines_this_machine(tmp_path, capsys, monkeypatch):
    asked = device_probe.probe
    monkeypatch.setattr(device_probe, "probe", lambda: asked(size=64))
    code = door.main([f"--workdir={tmp_path / 'run'}", "--json"])
    found = json.loads(capsys.readouterr().out)
    rows = {finding["check"]: finding for finding in found["findings"]}
    assert code == int(any(row["verdict"] == "wrong" for row in rows.values()))
    assert rows["workdir"]["verdict"] != "wrong" and not any(tmp_path.iterdir())
    assert rows["sum over devices"]["found"] == "1 + … + 8 over 8 devices is 36"  # conftest gives eight devices
    assert set(found["facts"]["probe"]["flops"]) >= {"float32", "bfloat16"}
    assert "jax" in rows and "Python" in rows


@pytest.mark.slow
def test_the_door_prints_its_table_as_a_user_calls_it(tmp_path):
    done = call("doctor", [f"--workdir={tmp_path}"], check=None)
    assert done.returncode == int("wrong: " in done.stdout), done.stdout + done.stderr
    assert "8 x cpu (cpu)" in done.stdout and "sum over devices" in done.stdout
