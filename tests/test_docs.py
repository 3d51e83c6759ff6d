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
from gsvr.masks.consensus import MaskOptions
from gsvr.solver.motion import LEVER, MotionOptions
from gsvr.solver.published import PaperOptions
from gsvr.solver.priors.lattice import PriorOptions
from gsvr.solver.weights import WeightOptions

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
METHOD = (REPOSITORY / "docs" / "method.md").read_text(encoding="utf-8")
USAGE = (REPOSITORY / "docs" / "usage.md").read_text(encoding="utf-8")
PAGES = sorted([REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *(REPOSITORY / "docs").glob("*.md")])
PUBLISHED = PaperOptions()
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


def test_the_table_of_stages_is_the_schedule():
    rows = re.findall(r"^\| .* \|$", METHOD.split("<!-- schedule", 1)[1].split("\n\n", 2)[1], re.MULTILINE)
    expected = [
        f"| {stage.name} | {stage.spacing:g} | {stage.sigma_ratio:g} | {stage.binning} x {stage.binning} "
        f"| {stage.rounds} | {stage.iterations} | {'nothing' if stage.motion == 'none' else stage.motion} "
        f"| {'yes' if stage.agree_on_mask else 'no'} |"
        for stage in gsvr.default_stages()
    ]
    assert rows[1:] == expected


@pytest.mark.parametrize(
    "statement",
    [
        f"$\\mu$ = {PriorOptions().strength:g}, $\\epsilon$ = {PriorOptions().edge:g}",
        f"measured by the displacement in mm that they cause {LEVER:g} mm",
        f"never below ({MotionOptions().least_step:g} mm)²",
        f"$\\kappa = {MotionOptions().model_noise:g}$",
        f"lengthened by a factor of {MotionOptions().relaxation:g}",
        f"less than {100 * gsvr.default_stages()[0].settled:g} % of the lattice spacing in a round",
        f"no parameter moves more than {MotionOptions().step_limit:g} mm",
        f"$1 / (1 + (r/{WeightOptions().pixel_cauchy:g}\\nu)^2)$",
        f"(e/{WeightOptions().slice_welsch:g})^2",
        f"but at least {WeightOptions().slice_floor:g}",
        f"between 1/{WeightOptions().gain_limit:g} and {WeightOptions().gain_limit:g} times the level of its stack",
        f"{MaskOptions().borrowed:g} mm wider",
        f"Pixels up to {MaskOptions().reach:g} mm outside",
        f"on a {MaskOptions().spacing:g} mm\n   lattice",
        f"That mask, {MaskOptions().margin:g} mm wider",
        f"cut off at {CUTOFF:g} standard deviations",
        f"{PUBLISHED.n_gaussians:,} free Gaussians, a pixel sees the {PUBLISHED.nearest:g} whose means",
        f"{PUBLISHED.scale_weight:g} (scale - {PUBLISHED.preferred_scale:g} mm)²; {PUBLISHED.epochs} epochs",
        f"learning rates {PUBLISHED.mean_rate:g} (means, scales), {PUBLISHED.quaternion_rate:g} (quaternions,",
        f"{PUBLISHED.rotation_rate:g} (rotations) and {PUBLISHED.translation_rate:g} (translations), "
        f"halved every {PUBLISHED.halved_every} epochs",
        f"{PUBLISHED.cutoff:g} standard deviations are the limit",
    ],
)
def test_the_method_states_the_defaults(statement: str):
    assert statement in METHOD


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
    blocks = code_blocks(USAGE, "python")
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
