"""The house rules, executable: who may import whom, and what files and names may look like."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

DOORS = {"pretrain", "finetune", "evaluate", "predict", "inspect", "convert", "average", "doctor", "plan", "verify"}
# The hall: it may know every room.
HALL = {
    "experiment",
    "settings",
    "prepared",
    "expected",
    "planned",
    "affordable",
    "run",
    "finish",
    "distillation",
    "averaging",
    "probing",
    "evaluator",
    "config",
    "provenance",
    "door",
    "training_door",
    "trained",
    "conversion",
    "evidence",
    "forgetting",
    "media",
    "reduced",
    "verified",
}

# What a room may import beside itself.
ROOMS = {
    "objectives": {"ops", "types", "metrics", "build"},
    "models": {"ops", "types", "build"},
    "training": {"types", "metrics"},
    "evaluation": {"types", "metrics", "ops", "batch"},  # batch: floors are computed from the documents of a Dataset
    "interop": {"types", "models"},
    "inference": {"types", "ops"},
    "planning": {"types", "training"},
    "checks": {"types", "training"},
    "data": {"batch", "build"},
    "ops": set(),
    "types": {"metrics"},
    "build": set(),
    "metrics": set(),
    "batch": set(),
    "environment": set(),
}
# A menu within a room is built from its block there; Muon's matrix kernel lies with the other kernels.
FILES = {"training/optimizer.py": {"build"}, "training/transforms.py": {"ops"}}

FORBIDDEN = {"utils", "util", "helpers", "helper", "misc", "manager"}
MAX_LINES = 450


def python_files() -> list[Path]:
    folders = [ROOT / name for name in ("research", "configs", "tests", "launch")]
    return [path for folder in folders for path in sorted(folder.rglob("*.py")) if ".venv" not in str(path)]


def imported_rooms(source: str) -> Iterator[str]:
    """The first name below `research` of every import, those within functions too; "." for a relative one."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield "."
            continue
        elif isinstance(node, ast.ImportFrom) and node.module == "research":
            names = [f"research.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        for name in names:
            if name.startswith("research."):
                yield name.split(".")[1]


def forbidden_imports(path: str, source: str) -> list[str]:
    """The rooms that the file at `path` (below research/) imports and must not know."""
    room = path.split("/")[0].removesuffix(".py")
    if room in DOORS | HALL:
        return [name for name in imported_rooms(source) if name == "."]
    allowed = ROOMS[room] | FILES.get(path, set()) | {room}
    return sorted({name for name in imported_rooms(source) if name not in allowed})


def defined_names(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name


def is_forbidden(name: str) -> bool:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_").split("_")
    return not FORBIDDEN.isdisjoint(words) or words[0] == "base" and len(words) > 1


def test_rooms_import_only_what_the_table_allows():
    found = {}
    for path in sorted((ROOT / "research").rglob("*.py")):
        below = path.relative_to(ROOT / "research").as_posix()
        if below != "__init__.py" and (wrong := forbidden_imports(below, path.read_text())):
            found[below] = wrong
    assert not found


def test_every_file_of_research_has_a_room():
    known = DOORS | HALL | set(ROOMS) | {"__init__"}
    rooms = {path.stem for path in (ROOT / "research").iterdir() if path.suffix == ".py"}
    rooms |= {path.parent.name for path in (ROOT / "research").glob("*/*.py")}
    assert rooms <= known


@pytest.mark.parametrize(
    ("path", "source", "wrong"),
    [
        ("objectives/masked_lm.py", "from research.models.heads import Model", ["models"]),
        ("objectives/masked_lm.py", "from research import data, types", ["data"]),
        ("models/heads.py", "def f():\n    import research.training.step", ["training"]),
        ("training/step.py", "from research.build import build", ["build"]),
        ("training/optimizer.py", "from research.build import build", []),
        ("data/text.py", "from research.batch import Spec\nfrom research.data import shards", []),
        ("ops/attention.py", "import research.types", ["types"]),
        ("batch.py", "from .types import Batch", ["."]),
        ("experiment.py", "from research.models import MODELS", []),
    ],
)
def test_import_table_sees(path, source, wrong):
    assert forbidden_imports(path, source) == wrong


@pytest.mark.parametrize(
    ("name", "forbidden"), [("CheckpointManager", True), ("base_model", True), ("database", False)]
)
def test_forbidden_names_are_seen(name, forbidden):
    assert is_forbidden(name) is forbidden


@pytest.mark.parametrize("path", python_files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_file_says_what_it_is_and_stays_short_and_well_named(path):
    source = path.read_text()
    assert ast.get_docstring(ast.parse(source)), "begin the file with a docstring that says what it is"
    assert len(source.splitlines()) <= MAX_LINES, "is this still one thing?"
    named = [path.stem, *path.relative_to(ROOT).parent.parts, *defined_names(source)]
    assert [name for name in named if is_forbidden(name)] == []


def test_a_batch_is_followed_through_few_files():
    readme = (ROOT / "README.md").read_text()
    paragraph = next(part for part in readme.split("\n\n") if part.startswith("A batch can be followed"))
    files = [ROOT / "research" / name for name in re.findall(r"`([\w/]+\.py)`", paragraph)]
    assert 10 < len(files) <= 15
    assert sum(len(file.read_text().splitlines()) for file in files) <= 2000


def test_test_files_have_names_of_their_own():
    """pytest imports test files without a package by their name alone."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
