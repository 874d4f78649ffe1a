"""Keeps the figures of finished runs as NAME.json beside this script, with what is needed to make them again.

python tests/benchmarks/keep.py NAME WORKDIR [WORKDIR …]
Command, commit, date, machine, versions and seed are those that the run itself wrote down.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# Long lists, which the run's own report shows.
LEFT_OUT = ("confusion", "per_class", "reliability", "abstention", "mistakes", "label_names")


def figures(workdir: Path) -> dict[str, Any]:
    """What a finished run says of itself."""
    run, page, result = (json.loads((workdir / f"{name}.json").read_text()) for name in ("run", "config", "result"))
    machine = run["machine"]
    return {
        "command": run["command"],
        "commit": run["commit"],
        "date": run["date"][:10],
        "machine": f"{machine['cores']} cores, {machine['system']}, Python {machine['python']}",
        "versions": run["versions"],
        "seed": page["seed"],
        "result": {key: value for key, value in result.items() if key.split("/")[-1] not in LEFT_OUT},
    }


def origin(packages: Sequence[str] = ("jax", "jaxlib")) -> dict[str, Any]:
    """Commit, date, machine and versions of what is measured now; needs no package but those."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    return {
        "commit": git("rev-parse", "HEAD")
        + (" with changes" if git("status", "--porcelain", "-uno", "--", "research", "configs") else ""),
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}",
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def train(workdir: str, door: str, page: str, keys: Mapping[str, object]) -> None:
    """Runs `research.DOOR` on a page in WORKDIR below the root, unless it is finished; an unfinished run goes on."""
    if (ROOT / workdir / "result.json").is_file():
        return
    given = [f"--config.{key}={value}" for key, value in keys.items()]
    command = [f"research.{door}", f"--config=configs/{page}", f"--workdir={workdir}", *given]
    subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=True)


def keep(name: str, workdirs: Sequence[Path]) -> None:
    """Writes NAME.json: the figures of a run, or a list of those of several."""
    found = [figures(workdir) for workdir in workdirs]
    (HERE / f"{name}.json").write_text(json.dumps(found if len(found) > 1 else found[0], indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("name")
    parser.add_argument("workdirs", nargs="+", type=Path, metavar="WORKDIR")
    flags = parser.parse_args()
    keep(flags.name, flags.workdirs)


if __name__ == "__main__":
    main()
