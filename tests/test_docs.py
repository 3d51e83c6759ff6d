"""The documentation says what the code does, as far as a test can read it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import typer.main

import gsvr
from gsvr.backends.windows import CUTOFF
from gsvr.cli import app
from gsvr.masks.options import MaskOptions
from gsvr.solver.gains import SliceGains
from gsvr.solver.loss import RobustLoss
from gsvr.solver.motion import LEVER, SliceMotion
from gsvr.solver.priors.lattice import LatticePrior
from gsvr.solver.priors.neighbours import NeighbourPrior
from gsvr.solver.seeding import SeedOptions

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
METHOD = (REPOSITORY / "docs" / "method.md").read_text(encoding="utf-8")
USAGE = (REPOSITORY / "docs" / "usage.md").read_text(encoding="utf-8")
ARCHITECTURE = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
SOURCE = REPOSITORY / "src" / "gsvr"
PAGES = sorted([REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *(REPOSITORY / "docs").glob("*.md")])
DEFAULTS = {
    type(options).__name__: options
    for options in (
        gsvr.SolverOptions(),
        LatticePrior(),
        MaskOptions(),
        NeighbourPrior(),
        RobustLoss(),
        SeedOptions(),
        SliceGains(),
        SliceMotion(),
    )
} | {"CUTOFF": CUTOFF, "LEVER": LEVER}
COMMANDS = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]


def options_of(command: str) -> set[str]:
    """Long and short names of a command's options."""
    return {
        name
        for parameter in COMMANDS[command].params
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("-")
    }


def section(title: str) -> str:
    """Text under a third-level heading of the page of usage."""
    return USAGE.split(f"### {title}\n", 1)[1].split("\n### ", 1)[0].split("\n## ", 1)[0]


def code_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def anchor(heading: str) -> str:
    """Make a heading's anchor as GitHub does."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def table_after(comment: str) -> list[list[str]]:
    """Cells of the table in the page of the method that follows a comment, without its header."""
    rows = re.findall(r"^\| (.*) \|$", METHOD.split(f"<!-- {comment}", 1)[1].split("\n\n", 2)[1], re.MULTILINE)
    return [row.split(" | ") for row in rows[1:]]


def test_the_table_of_stages_is_the_schedule():
    assert table_after("schedule") == [
        [
            stage.name,
            f"{stage.spacing:g}",
            f"{stage.sigma_ratio:g}",
            f"{stage.binning} x {stage.binning}",
            str(stage.outer_iterations),
            str(stage.inner_iterations),
            "nothing" if stage.motion == "none" else stage.motion,
            "yes" if stage.consensus_mask else "no",
        ]
        for stage in gsvr.default_stages()
    ]


@pytest.mark.parametrize("row", table_after("defaults"), ids=lambda row: row[1])
def test_the_table_of_defaults_holds_the_defaults(row: list[str]):
    name, _, attribute = row[1].strip("`").partition(".")
    default = getattr(DEFAULTS[name], attribute) if attribute else DEFAULTS[name]
    assert row[2] == f"{default:g}"


def test_the_files_of_every_concept_exist():
    rows = re.findall(
        r"^\| .* \| (`.*`) \|$", ARCHITECTURE.split("\n## Where to find it", 1)[1].split("\n## ")[0], re.MULTILINE
    )
    assert rows
    missing = []
    for row in rows:
        folder = Path()
        for name in re.findall(r"`([\w/.]+)`", row):
            # the first file of a row is named with its folder, and those after it may do without
            path = Path(name)
            folder = path.parent if len(path.parts) > 1 else folder
            path = path if len(path.parts) > 1 else folder / name
            if not (SOURCE / path).exists():
                missing.append(str(path))
    assert missing == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(command: str):
    text = section(f"gsvr {command}")
    missing = {name for name in options_of(command) if f"`{name}`" not in text}
    assert missing <= {"--help", "-h"}


@pytest.mark.parametrize("text", [README, USAGE], ids=["README", "usage"])
def test_commands_in_the_documentation_have_the_options_they_use(text: str):
    used = []
    for block in code_blocks(text, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            found = re.match(r"gsvr (\w+) ", line)
            if found:
                used += [(found[1], name) for name in re.findall(r" (--?[a-z][\w-]*)", line)]
    assert used
    assert [(command, name) for command, name in used if name not in options_of(command)] == []


def test_python_in_the_documentation_is_python_and_its_names_exist():
    blocks = code_blocks(README, "python") + code_blocks(USAGE, "python")
    assert len(blocks) >= 3
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "gsvr":
                assert node.attr in gsvr.__all__


def test_every_public_name_is_in_the_table_of_names():
    table = USAGE.split("\n## Python\n", 1)[1]
    assert [name for name in gsvr.__all__ if not re.search(rf"`{name}\b", table)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    text = page.read_text(encoding="utf-8")
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, part = target.partition("#")
        if name.startswith("http"):
            continue
        path = page.parent / name if name else page
        headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE) if part else []
        if not path.is_file() or (part and part not in map(anchor, headings)):
            broken.append(target)
    assert broken == []


def test_every_picture_is_shown_somewhere():
    shown = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    pictures = sorted((REPOSITORY / "docs" / "images").glob("*.png"))
    assert pictures
    assert [path.name for path in pictures if f"images/{path.name}" not in shown] == []
