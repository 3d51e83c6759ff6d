"""The checks of the repository find what they are there to find; `make lint` runs them on this one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from scripts.check_repository import main

PLACE = "/".join(["", "home", "someone", "stack.nii.gz"])
METHOD = """
<!-- defaults -->

| | option | value |
|---|---|---|
| reason | `InputError.code` | 2.5 |
| lever | `LEVER` | 35 |
"""
FILES = {
    "src/gsvr/__init__.py": '__all__ = ["reconstruct"]\n',
    "src/gsvr/errors.py": "class InputError(Exception):\n    reason = ''\n    code: float = 2.5\n\nLEVER = 35.0\n",
    "src/gsvr/model/__init__.py": "",
    "src/gsvr/model/geometry.py": '"""As in `gsvr.errors.InputError.reason`."""\nimport gsvr.errors\n',
    "src/gsvr/solver/rounds.py": "from gsvr.model.geometry import *\nfrom gsvr.errors import InputError\n",
    "docs/usage.md": "",
    "docs/images/stages.png": "",
    "docs/architecture.md": "\n## Where to find it\n\n| geometry | `model/geometry.py`, `__init__.py` |\n",
    "docs/method.md": METHOD,
}
USAGE = """# Usage
See [the pose](#a-pose), [README](../README.md) and https://example.org/home/page.
### gsvr reconstruct
OPTIONS
### gsvr bids
OPTIONS
### gsvr dicom2bids
OPTIONS
### gsvr mask
OPTIONS
### gsvr render
OPTIONS
### gsvr plane
OPTIONS
### gsvr simulate
OPTIONS
### gsvr evaluate
OPTIONS
### gsvr report
OPTIONS
### gsvr view
OPTIONS
### gsvr live
OPTIONS
### gsvr send
OPTIONS
## A pose
![stages](images/stages.png)
```sh
gsvr render field.safetensors --output-volume \\
    brain.nii.gz
```
```python
gsvr.errors.InputError
```

## Python
`reconstruct(slices)`
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository without a fault."""
    from typer.main import get_command

    from gsvr.cli import app

    options = {
        name
        for command in get_command(app).commands.values()  # pyright: ignore[reportAttributeAccessIssue]
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
    }
    explained = " ".join(f"`{option}`" for option in sorted(options))
    for name, text in {**FILES, "README.md": "", "docs/usage.md": USAGE.replace("OPTIONS", explained)}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    return tmp_path


def test_a_repository_without_a_fault(repository: Path, capsys: pytest.CaptureFixture[str]):
    assert main(repository) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        (
            "src/gsvr/model/slices.py",
            "def f():\n    import gsvr.solver.rounds\n",
            "slices.py:2: model imports gsvr.solver",
        ),
        ("src/gsvr/model/slices.py", "from .geometry import invert\n", "relative import"),
        ("src/gsvr/secret/noise.py", "", "secret is none of the layers"),
        ("src/gsvr/solver/utils.py", "", "says nothing"),
        ("src/gsvr/errors.py", "import gsvr.model.geometry\n", "circle of imports: gsvr.errors -> gsvr.model.geometry"),
        ("benchmarks/speed.py", "def f():\n    from benchmarks import speed_plots\n", None),
        ("examples/demo.py", f"read('{PLACE}')\n", "examples/demo.py:1: a path of one machine"),
        (
            "src/gsvr/model/slices.py",
            '"""As `gsvr.model.geometry.invert`."""\n',
            "there is no gsvr.model.geometry.invert",
        ),
        ("README.md", "[the pose](docs/usage.md#the-pose)", "no such heading"),
        ("README.md", "[the method](docs/methods.md)", "README.md: docs/methods.md leads nowhere"),
        ("docs/images/motion.png", "", "motion.png: no page shows"),
        ("README.md", "```sh\ngsvr render field --fine\n```\n", "gsvr render has no option --fine"),
        ("README.md", "```sh\ngsvr paint field\n```\n", "no command gsvr paint"),
        ("README.md", "```python\nimport gsvr as\n```\n", "README.md: invalid syntax"),
        ("README.md", "```python\nfrom gsvr.errors import Oops\n```\n", "there is no gsvr.errors.Oops"),
        ("src/gsvr/__init__.py", '__all__ = ["reconstruct", "simulate"]\n', "the public name simulate"),
        ("docs/method.md", METHOD.replace("2.5", "2.4"), "`InputError.code` is 2.5, not 2.4"),
        ("docs/method.md", METHOD.replace("LEVER", "LENGTH"), "there is no `LENGTH`"),
        ("docs/method.md", "<!-- schedule -->\n\n| stage |\n|---|\n| final | 1 |\n\n", "not final | 1"),
        ("docs/architecture.md", "\n## Where to find it\n\n| pose | `model/pose.py` |\n", "no model/pose.py"),
        ("docs/usage.md", USAGE.replace("OPTIONS", "`--output-volume`"), "gsvr plane: --normal is not explained"),
        ("docs/usage.md", USAGE.replace("### gsvr plane", "## Planes"), "no section about gsvr plane"),
    ],
)
def test_a_fault_is_told(repository: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, fault: str | None):
    path = repository / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    expected = 0 if fault is None else 1
    assert main(repository) == expected
    assert (fault or "") in capsys.readouterr().out
