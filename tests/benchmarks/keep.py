"""Keeps the figures of finished runs as NAME.json beside this script, with what is needed to make them again.

python tests/benchmarks/keep.py NAME WORKDIR [WORKDIR …]
Command, commit, date, machine, versions and seed are those that the run itself wrote down.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
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


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("name")
    parser.add_argument("workdirs", nargs="+", type=Path, metavar="WORKDIR")
    flags = parser.parse_args()
    found = [figures(workdir) for workdir in flags.workdirs]
    (HERE / f"{flags.name}.json").write_text(json.dumps(found[0] if len(found) == 1 else found, indent=1) + "\n")


if __name__ == "__main__":
    main()
