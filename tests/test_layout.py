"""The layout that lets a newcomer find things: small files, short functions, imports that point downwards."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCE = REPOSITORY / "src"
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60

# From the bottom up: a module may import from its own layer and from those above it in this list.
LAYERS = (
    ("errors",),
    ("compiled",),
    ("geometry", "morphology"),
    ("acquisition",),
    ("psf",),
    ("volume_grid",),
    ("field",),
    ("kernels", "devices"),
    ("forward",),
    ("masking", "registration", "stack_checks"),
    ("sampling", "mask_grid"),
    ("solver", "device_solver"),
    ("volume", "plane"),
    ("warmup",),
    ("quality", "report"),
    ("holdout",),
    ("signed_distance", "smooth_noise", "phantom"),
    ("simulated_artefacts", "simulated_motion", "slice_sampling", "simulate"),
    ("io", "picture"),
    ("pipeline",),
    ("outputs",),
    ("batch",),
    ("cli",),
)
LAYER_OF = {name: height for height, layer in enumerate(LAYERS) for name in layer}

TEXT_SUFFIXES = {".py", ".md", ".toml", ".yml", ".yaml", ".txt", ".cff", ".cfg", ".json", ".html", ".sh", ""}
TEXT_PLACES = (
    "*",
    ".ci/*",
    *(f"{folder}/**/*" for folder in (".github", "benchmarks", "docs", "examples", "src", "tests")),
)
# what is computed, and kept out of the repository; in a second working tree of one repository .git is a file
COMPUTED = {"__pycache__", "output", ".git"}
MACHINE_PATH = re.compile(r"(?<![\w.~}:/-])/(?:home|root|tmp|opt|work|Users|mnt|data|scratch)/")


def source_files() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def imported_parts(tree: ast.AST) -> Iterator[str]:
    """First part below ``gsvr`` of everything that is imported from it, at the top or inside a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            part = rest.partition(".")[0]
            if package == "gsvr" and part in LAYER_OF:
                yield part


@pytest.fixture(params=source_files(), ids=module_name)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_there_are_sources():
    assert source_files()


def test_every_module_has_a_layer():
    # packages and modules directly under gsvr; a new one is given its place in LAYERS
    names = {path.relative_to(SOURCE / "gsvr").with_suffix("").parts[0] for path in source_files()}
    assert names - set(LAYER_OF) <= {"__init__", "__main__"}


def test_files_are_short(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < MAX_FILE_LINES


def test_functions_are_short(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    # the signature of a command is the declaration of its options, not something to follow line by line
    is_command_module = module_name(path).startswith("gsvr.cli.")
    lengths = {
        node.name: (node.end_lineno or 0) - (node.body[0].lineno if is_command_module else node.lineno) + 1
        for node in functions(tree)
    }
    assert {name: length for name, length in lengths.items() if length >= MAX_FUNCTION_LINES} == {}


def test_imports_point_downwards(path: Path):
    part = module_name(path).partition(".")[2].partition(".")[0]
    if part not in LAYER_OF:  # gsvr itself, which shows the public names of every layer
        return
    imported = set(imported_parts(ast.parse(path.read_text(encoding="utf-8"))))
    assert {name for name in imported if LAYER_OF[name] > LAYER_OF[part]} == set()


def test_no_module_is_named_after_nothing(path: Path):
    assert path.stem not in {"utils", "util", "helpers", "misc", "common"}


def test_no_paths_of_one_machine():
    found = []
    for pattern in TEXT_PLACES:
        for path in REPOSITORY.glob(pattern):
            parts = path.relative_to(REPOSITORY).parts
            if path.is_file() and path.suffix in TEXT_SUFFIXES and COMPUTED.isdisjoint(parts):
                lines = path.read_text(encoding="utf-8").splitlines()
                found += [f"{path.name}:{n}" for n, line in enumerate(lines, 1) if MACHINE_PATH.search(line)]
    assert found == []


def test_a_machine_path_would_be_found():
    assert MACHINE_PATH.search("see " + "/".join(["", "home", "someone", "stack.nii.gz"]))
    assert not MACHINE_PATH.search("https://example.org/home/page and ../shared/data and src/data/x")
