"""A checkout whose commands and clouds are stand-ins, for the tests of launch/."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# What a shell, a template or a person may take for something else.
HARD = ["--config.a=two  words", 'it\'s "$HOME"; `x` $(y) $$', "a\nb\\", "", "*", "@NAME@ & é", "-x", "${A}"]

# Keeps its arguments, is preempted the first time and done the second.
DOOR = """#!/usr/bin/env bash
process=${SLURM_PROCID:-}${WORKER:-}
for argument in "$@"; do [[ $argument != --process_id=* ]] || process=${argument#*=}; done
printf '%s\\0' "$@" >"$RECORD/arguments.$process"
echo "process $process speaks"
if [ -e "$RECORD/began.$process" ]; then exit 0; fi
touch "$RECORD/began.$process"
exit 75
"""


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


class Checkout:
    """`folder` holds launch/, committed, with a local.sh that only runs the command; `bin` comes first on the path."""

    def __init__(self, folder: Path):
        self.folder, self.bin, self.record = folder / "checkout", folder / "bin", folder / "record"
        self.record.mkdir(parents=True)
        shutil.copytree(ROOT / "launch", self.folder / "launch")
        script(self.folder / "launch" / "local.sh", '#!/usr/bin/env bash\nexec "$@"\n')
        self.door = str(script(self.bin / "door", DOOR))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "GIT_"))}
        self.environment = kept | {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "RECORD": str(self.record),
            "TMPDIR": str(folder),
            "GIT_CONFIG_GLOBAL": os.devnull,
        }

    def commit(self) -> None:
        person = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        for arguments in (("init", "--quiet"), ("add", "."), (*person, "commit", "--quiet", "--message=all")):
            subprocess.run(["git", *arguments], cwd=self.folder, env=self.environment, check=True)

    def start(self, *command: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        started = self.start(*command, **variables)
        try:
            output, errors = started.communicate(timeout=60)
        finally:
            started.kill()
        return subprocess.CompletedProcess(command, started.returncode, output, errors)

    def arguments(self, process: str) -> list[str]:
        """What the door of this process was given last."""
        return (self.record / f"arguments.{process}").read_text().split("\0")[:-1]
