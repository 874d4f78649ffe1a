"""Verdicts on the machine around the devices: folders, disk, memory, files, and the environment as it is set."""

from __future__ import annotations

from collections.abc import Iterator

from research.checks.findings import Finding, warning, wrong
from research.checks.machine import Facts, Folder

_LEAST_DISK, _AMPLE_DISK = 10**9, 10**10  # bytes: the quickstart's run and cache; a run of a hundred million parameters
_LEAST_MEMORY, _AMPLE_MEMORY = 1.2e9, 4e9  # the quickstart's peak is 1.1 GB
_LEAST_FILES = 1024
_LEAST_SHARED = 10**9  # NCCL's buffers between processes and devices lie there


def check_host(facts: Facts) -> Iterator[Finding]:
    yield Finding("CPU", f"{facts.cores} x {facts.cpu}")
    yield _memory(facts)
    yield from _folder(facts.workdir, "workdir", "python -m research.pretrain … --workdir=FOLDER")
    yield from _folder(facts.cache, "cache", "export GROUNDWORK_CACHE=FOLDER")
    if facts.compiled is not None:
        yield from _folder(facts.compiled, "compiled programs", "export JAX_COMPILATION_CACHE_DIR=FOLDER")
    yield _open_files(facts)
    yield from _shared_memory(facts)
    yield from _environment(facts)


def _memory(facts: Facts) -> Finding:
    memory = facts.memory
    found = f"{memory.usable / 1e9:.1f} of {memory.total / 1e9:.1f} GB available"
    if memory.limit:
        found += f", limited to {memory.limit / 1e9:.1f} GB for this process's group"
    show = "ps aux --sort=-%mem | head"
    if memory.usable < _LEAST_MEMORY:
        return wrong("memory", found, "even the quickstart takes 1.1 GB; end other processes, or raise the limit", show)
    if memory.usable < _AMPLE_MEMORY:
        return warning("memory", found, "enough for small models; the system ends processes that take more", show)
    return Finding("memory", found)


def _folder(folder: Folder, name: str, elsewhere: str) -> Iterator[Finding]:
    place = folder.wanted if folder.path == folder.wanted else f"{folder.wanted} (in {folder.path})"
    if folder.error:
        yield wrong(name, f"{place}: {folder.error}", "no file can be written there; take another folder", elsewhere)
        return
    found = f"{place}: writable, {folder.free / 1e9:.1f} GB free"
    show = f"du -xh --max-depth=1 {folder.path} | sort -h | tail   # or {elsewhere}"
    if folder.free < _LEAST_DISK:
        yield wrong(name, found, "a run will fill the disk; free some, or take another folder", show)
    elif folder.free < _AMPLE_DISK:
        yield warning(name, found, "checkpoints of a large model fill it: each holds three times the parameters", show)
    else:
        yield Finding(name, found)


def _open_files(facts: Facts) -> Finding:
    if not facts.open_files:
        return Finding("open files", "no limit")
    if facts.open_files < _LEAST_FILES:
        advice = "data in many shards and checkpoints of many arrays need more files at once"
        return warning("open files", f"at most {facts.open_files}", advice, "ulimit -n 4096")
    return Finding("open files", f"at most {facts.open_files}")


def _shared_memory(facts: Facts) -> Iterator[Finding]:
    if not facts.shared_memory:
        return
    found = f"{facts.shared_memory / 1e9:.2g} GB"
    if facts.shared_memory < _LEAST_SHARED and len(facts.gpus) > 1:
        advice = "NCCL passes data between GPUs through it; a container's default of 64 MB is too small"
        yield warning("/dev/shm", found, advice, "docker run --shm-size=8g …")
    else:
        yield Finding("/dev/shm", found)


def _environment(facts: Facts) -> Iterator[Finding]:
    if facts.environment:
        yield Finding("environment", " ".join(f"{name}={value}" for name, value in facts.environment.items()))
