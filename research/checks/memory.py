"""How much memory this process may have: the machine's, and what its control groups leave of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_NO_LIMIT = 2**60  # version 1 writes a number near 2**63 where there is none


@dataclass(frozen=True)
class Memory:
    """In bytes. `limit` is the lowest of the control groups that this process is in, 0 where none limits it."""

    total: int = 0
    available: int = 0
    limit: int = 0
    used_of_limit: int = 0

    @property
    def usable(self) -> int:
        """What a run can still take."""
        return min(self.available, self.limit - self.used_of_limit) if self.limit else self.available


def read_memory(root: Path) -> Memory:
    path = root / "proc/meminfo"
    if not path.exists():
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return Memory(total, total)
    kilobytes = {name: int(size) for name, size in re.findall(r"^(\w+):\s+(\d+) kB", path.read_text(), re.MULTILINE)}
    total = kilobytes.get("MemTotal", 0) * 1024
    available = kilobytes.get("MemAvailable", kilobytes.get("MemFree", 0)) * 1024
    limits = [each for each in _limits(root) if each[0] < min(total, _NO_LIMIT)]
    limit, used = min(limits, key=lambda each: each[0] - each[1], default=(0, 0))
    return Memory(total, available, limit, used)


def _limits(root: Path) -> Iterator[tuple[int, int]]:
    """(limit, used) of the control group of this process and of every one around it, in versions 1 and 2."""
    listed = root / "proc/self/cgroup"
    for line in listed.read_text().splitlines() if listed.exists() else ():
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        if controllers:
            top, names = (
                top / "memory",
                ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
            )
        folder = top / group.lstrip("/")
        while True:
            limit = _number(folder / names[0])
            if limit is not None:
                # Pages of files that are not in use count as used, and are given back when needed.
                reclaimable = _statistic(folder / "memory.stat", names[2])
                yield limit, max(0, (_number(folder / names[1]) or 0) - reclaimable)
            if folder == top or top not in folder.parents:
                break
            folder = folder.parent


def _number(path: Path) -> int | None:
    text = path.read_text().strip() if path.exists() else ""
    return int(text) if text.isdigit() else None  # "max": no limit


def _statistic(path: Path, name: str) -> int:
    found = re.search(rf"^{name} (\d+)$", path.read_text(), re.MULTILINE) if path.exists() else None
    return int(found.group(1)) if found else 0
