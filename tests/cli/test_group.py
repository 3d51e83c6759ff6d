"""What a user sees when a command meets bad input or is interrupted."""

from __future__ import annotations

from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from gsvr.cli.group import CommandGroup
from gsvr.errors import InputError, InstallationError


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer(cls=CommandGroup, pretty_exceptions_enable=False)

    @app.command()
    def read(path: str, verbose: Annotated[bool, typer.Option("--verbose")] = False) -> None:
        raise InputError(f"{path}: not a NIfTI file,\n  give another one")

    @app.command()
    def fit(input_stacks: list[str], output_size: Annotated[float, typer.Option("--size")] = 0.8) -> None:
        raise InputError("`output_size` 7: give one of the `stacks` or `nothing`, as in `pip install gsvr`")

    @app.command()
    def wait() -> None:
        raise KeyboardInterrupt

    @app.command()
    def allocate() -> None:
        raise MemoryError("2 TB")

    @app.command()
    def load() -> None:
        raise InstallationError("the kernels are missing: build them")

    @app.command()
    def divide() -> None:
        raise ZeroDivisionError

    return app


def test_lack_of_memory_is_one_line(app: typer.Typer):
    result = CliRunner().invoke(app, ["allocate"])
    assert result.exit_code == 1
    assert result.stderr.startswith("gsvr: error: not enough memory: close other programs")
    assert len(result.stderr.splitlines()) == 1


def test_a_broken_installation_is_one_line(app: typer.Typer):
    result = CliRunner().invoke(app, ["load"])
    assert result.exit_code == 1
    assert result.stderr == "gsvr: error: the kernels are missing: build them\n"


def test_bad_input_is_one_line_and_exit_code_two(app: typer.Typer):
    result = CliRunner().invoke(app, ["read", "a.nii"])
    assert result.exit_code == 2
    assert result.stderr == "gsvr: error: a.nii: not a NIfTI file, give another one\n"
    assert result.stdout == ""


def test_arguments_of_the_library_become_options(app: typer.Typer):
    result = CliRunner().invoke(app, ["fit", "a.nii"])
    assert result.stderr == (
        "gsvr: error: --size 7: give one of the --input-stacks or `nothing`, as in `pip install gsvr`\n"
    )


def test_verbose_adds_the_traceback(app: typer.Typer):
    result = CliRunner().invoke(app, ["read", "a.nii", "--verbose"])
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("gsvr: error: a.nii: not a NIfTI file, give another one\n")


def test_interruption(app: typer.Typer):
    result = CliRunner().invoke(app, ["wait"])
    assert result.exit_code == 130
    assert result.stderr == "gsvr: interrupted, no half-written file is left\n"


def test_a_defect_is_not_hidden(app: typer.Typer):
    result = CliRunner().invoke(app, ["divide"])
    assert isinstance(result.exception, ZeroDivisionError)


def test_a_wrong_option_is_a_usage_error(app: typer.Typer):
    result = CliRunner().invoke(app, ["read", "a.nii", "--no-such-option"])
    assert result.exit_code == 2
    assert "--no-such-option" in result.stderr
