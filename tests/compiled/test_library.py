"""Calling kernels in C: arrays are checked, structures hold what they point to, both variants agree."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from gsvr import compiled
from gsvr.compiled import Structure, library, run
from gsvr.errors import InputError, InstallationError

HEADERS = (Path(compiled.__file__).parent / "c").glob("*_kernels.h")


def place(mask: np.ndarray, positions: np.ndarray) -> None:
    """One slice of 2 x 3 pixels."""
    shape, first = np.array([[2, 3]]), np.array([0, 6])
    corner, steps = np.array([[10.0, 20, 30]]), np.array([[[1.0, 0, 0], [0, 2, 0]]])
    run("place_pixels", 1, shape, first, corner, steps, mask, np.array([0, mask.sum()]), positions)


def test_a_kernel_writes_what_it_should():
    positions = np.zeros((2, 3))
    place(np.array([0, 0, 1, 0, 1, 0], bool), positions)
    assert positions.tolist() == [[10, 24, 30], [11, 22, 30]]


def test_arrays_of_another_type_are_refused():
    with pytest.raises(TypeError, match="positions has elements float32, not double"):
        place(np.ones(6, bool), np.zeros((6, 3), np.float32))


def test_arrays_with_gaps_are_refused():
    with pytest.raises(TypeError, match="positions is not contiguous"):
        place(np.ones(6, bool), np.zeros((6, 6))[:, ::2])


def test_arrays_that_may_not_be_written_to_are_refused():
    positions = np.zeros((6, 3))
    positions.flags.writeable = False
    with pytest.raises(TypeError, match="may not be written to"):
        place(np.ones(6, bool), positions)


def test_an_array_that_is_not_there_is_refused_unless_it_may_be_absent():
    numbers = np.zeros(3, np.float32)
    with pytest.raises(TypeError, match="starts must be an array, not None"):
        Structure("lattice_splats", starts=None, ratios_u=numbers, ratios_v=numbers, scales=numbers)
    extent, ones = np.array([[[0, 3]]]), np.ones(3, np.float32)
    bonds = Structure("lattice_bonds", nx=1, ny=1, nz=3, weights=np.ones((13, 1, 1, 3), np.float32), extent=extent)
    out = np.zeros(3, np.float32)
    run("apply_bonds", 1, bonds, np.array([1, 2, 1], np.float32), 1.0, ones, None, out)
    assert out.tolist() == [0, 0, 0]


def test_the_number_of_arguments_is_checked():
    with pytest.raises(TypeError, match="place_pixels takes 7 arguments"):
        run("place_pixels", 1, np.zeros(3))


def test_a_structure_needs_all_of_its_fields_and_no_others():
    with pytest.raises(TypeError, match="lattice_splats has the fields starts, ratios_u, ratios_v, scales"):
        Structure("lattice_splats", starts=np.zeros(3, np.int32))


def test_a_structure_of_another_kind_is_refused():
    numbers = np.zeros(3, np.float32)
    splats = Structure(
        "lattice_splats", starts=np.zeros(3, np.int32), ratios_u=numbers, ratios_v=numbers, scales=numbers
    )
    with pytest.raises(TypeError, match="bonds is a lattice_splats, not a lattice_bonds"):
        run("sum_bonds", 1, splats, numbers, numbers)


def test_a_structure_holds_its_arrays():
    """Nobody else does: without that their memory would be given to others."""
    extent, n = np.array([[[0, 3]]]), 3
    bonds = Structure("lattice_bonds", nx=1, ny=1, nz=n, weights=np.ones((13, 1, 1, n), np.float32), extent=extent + 0)
    others = [np.full((13, 1, 1, n), 9, np.float32) for _ in range(100)]
    sums = np.zeros(n, np.float32)
    run("sum_bonds", 1, bonds, np.ones(n, np.float32), sums)
    assert sums.tolist() == [1, 2, 1]
    assert len(others) == 100


def test_a_thread_that_is_not_waited_for_holds_the_arrays(monkeypatch: pytest.MonkeyPatch):
    """A second Ctrl-C may end the wait."""
    late = []

    def interrupted(work: Callable[[], int], _: int) -> list[int]:
        late.append(work)
        raise KeyboardInterrupt

    monkeypatch.setattr(library, "on_all_threads", interrupted)
    mask = np.ones(6, bool)
    alive = weakref.ref(mask)
    with suppress(KeyboardInterrupt):
        place(mask, np.zeros((6, 3)))
    del mask
    assert alive() is not None
    late.pop()
    assert alive() is None


def test_every_function_of_the_header_is_in_the_library():
    functions = library._library().functions
    assert len(functions) > 10
    declared = sum(header.read_text(encoding="utf-8").count("\nKERNEL ") for header in HEADERS)
    assert declared == len(functions)


def test_an_unknown_variant_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GSVR_INSTRUCTIONS", "avx512")
    with pytest.raises(InputError, match="GSVR_INSTRUCTIONS is 'avx512'"):
        library._path_of_library()


def test_without_the_library_the_user_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(library, "_FOLDER", tmp_path)
    with pytest.raises(InstallationError, match=r"kernels are missing .*pip install \."):
        library._path_of_library()


def test_a_library_that_is_damaged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("GSVR_INSTRUCTIONS", raising=False)  # a variant that is asked for is not tried first
    (tmp_path / "_portable.so").write_bytes(b"no library")
    monkeypatch.setattr(library, "_FOLDER", tmp_path)
    with pytest.raises(InstallationError, match=r"kernels cannot be loaded .*pip install \."):
        library._path_of_library()


def test_a_library_that_is_older_than_the_headers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Where the package is installed in place, new headers do not build the library anew."""
    shutil.copytree(library._FOLDER, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(library, "_FOLDER", tmp_path)
    library._Library()
    with (tmp_path / "c" / "solver_kernels.h").open("a") as header:
        header.write("/* one argument more */")
    with pytest.raises(InstallationError, match=r"kernels are not those of its source code: .*build_ext --inplace"):
        library._Library()


def numbers_with(instructions: str) -> tuple[str, np.ndarray]:
    words = [sys.executable, "-m", "tests.compiled.both_variants"]
    environment = {**os.environ, "GSVR_INSTRUCTIONS": instructions}
    folder = Path(__file__).parents[2]
    done = subprocess.run(words, env=environment, cwd=folder, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    return found["instructions"], np.array(found["numbers"])


def test_both_variants_agree():
    chosen, fast = numbers_with("")
    portable, plain = numbers_with("portable")
    assert portable == "portable"
    assert chosen in {"avx2", "portable"}
    np.testing.assert_allclose(fast, plain, rtol=2e-5, atol=2e-6 * np.abs(plain).max())


def test_arrays_that_are_too_short_are_refused():
    """In C there would be no error, but other people's memory."""
    positions = np.zeros((5, 3))
    with pytest.raises(ValueError, match=r"place_pixels: corners has 3 elements, too few for \[n 3\] \(n = 2\)"):
        run(
            "place_pixels", 2, np.array([[2, 3], [1, 1]]), np.array([0, 6, 7]), np.zeros((1, 3)), np.zeros((2, 2, 3)),
            np.ones(7, bool), np.array([0, 3, 5]), positions,
        )  # fmt: skip
    bonds = Structure(
        "lattice_bonds", nx=1, ny=2, nz=3, weights=np.ones((13, 1, 2, 3), np.float32), extent=np.zeros((1, 2, 2), int)
    )
    six, five = np.ones(6, np.float32), np.ones(5, np.float32)
    run("sum_bonds", 1, bonds, six, np.zeros(6, np.float32))
    with pytest.raises(ValueError, match=r"sum_bonds: ones has 5 elements, too few for \[nx ny nz\]"):
        run("sum_bonds", 1, bonds, five, np.zeros(6, np.float32))
    with pytest.raises(ValueError, match=r"lattice_bonds: extent has 2 elements"):
        Structure(
            "lattice_bonds", nx=1, ny=2, nz=3, weights=np.ones((13, 1, 2, 3), np.float32), extent=np.array([[[0, 3]]])
        )
    with pytest.raises(ValueError, match="step_conjugate_gradients: curved has 5 elements"):
        run("step_conjugate_gradients", 1, 6, 6, 0.5, six, five, six, six)
    vectors = np.zeros((4, 3, 3))
    with pytest.raises(ValueError, match="find_eigenvectors: eigenvalues has 9 elements"):
        run("find_eigenvectors", 1, 4, 4, np.ones((4, 3, 3), np.float32), np.zeros((3, 3)), vectors)


def test_every_declaration_with_brackets_is_understood():
    """A bracket that the pattern missed would check nothing."""
    library_ = library._library()
    understood = sum(len(lengths) for *_, lengths in (*library_.functions.values(), *library_.structures.values()))
    text = "".join(
        header.read_text(encoding="utf-8") for header in (Path(compiled.__file__).parent / "c").glob("*_kernels.h")
    )
    assert understood == text.count("/* [")
