# make demo   a virtual environment in .venv, then a phantom, its reconstruction and the figures
# make live-demo   the same environment, then a simulated scanner, gsvr live and its page on this machine (minutes)
# make test   the same environment with the development tools, then the tests on all cores
# make sanitize   the kernels built with the address and undefined-behaviour sanitizers, and the tests that reach them (GCC)
# make coverage   the same, and what they cover (twice the time)
# make lint   ruff, clang-format, pyright, and the checks of layout and documentation in scripts/check_repository.py
# make bench-core, bench, bench-full   quality, speed and memory; methods compared (minutes); all of it (hours)
# make bench-uncertainty   is the standard deviation of a voxel what its error turns out to be? (minutes)
# make bench-robustness   small acquisitions, good and bad: poses recovered, and what the verdict says (an hour)
# make bench-gpu   kernels and reconstructions on an Nvidia card (minutes): benchmarks/results/gpu.json. Needs no .venv:
#                  PYTHON with NumPy, SciPy, setuptools, PyTorch and Triton will do; BENCH_OPTIONS=--interpret without a card
# make bench-speed   measure speed and scaling anew (minutes): benchmarks/results/speed.json and the plots of docs/speed.md
#
# PYTHON=python3.12      the interpreter to build .venv with (3.11 or newer)
# TORCH_INDEX=URL        an extra package index to take PyTorch from, such as the one with CPU builds:
#                        https://download.pytorch.org/whl/cpu (on Linux PyPI's own build brings gigabytes of CUDA)
# PYTEST_OPTIONS=...     more options for pytest, such as "-m 'not slow'"
# BENCH_OPTIONS=...      options of a benchmark, such as --full (with ten million pixels)

SHELL := bash
.SHELLFLAGS := -euo pipefail -c

PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11,\
	$(shell $(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))

VENV := .venv
BIN := $(VENV)/bin
REQUIREMENTS := pyproject.toml constraints.txt setup.py $(wildcard src/gsvr/compiled/c/*)
C_SOURCES = $(shell git ls-files '*.c' '*.h')
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --constraint constraints.txt
# one short line a package, so that minutes of installing do not look like a hang
SHOW_PROGRESS = awk '/^Collecting/ { print "  " $$2; fflush() } /^Installing/ { print "  unpacking"; fflush() }'
DEVELOPMENT_INDEX = $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.PHONY: help demo live-demo test sanitize coverage bench bench-core bench-full bench-gpu bench-speed bench-uncertainty bench-robustness lint format clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile

demo: $(VENV)/installed
	@$(BIN)/python examples/demo.py

live-demo: $(VENV)/installed-for-development
	@$(BIN)/python examples/live_demo.py

test: $(VENV)/installed-for-development
	@echo "make: running the tests"
	@$(BIN)/python -m pytest $(PYTEST_OPTIONS)

# A copy of the sources, so that the library in use stays as it is. Tests run with the plain variant, that which compares
# the variants with both. Left out are the C library's allocator, which sanitizers replace, and what is not in C.
SANITIZED := build/sanitized
sanitize: $(VENV)/installed-for-development
	@echo "make: building the kernels with sanitizers (a minute)"
	@rm -rf $(SANITIZED)
	@mkdir -p $(SANITIZED)
	@git ls-files -z src tests setup.py pyproject.toml README.md LICENSE | xargs -0 cp --parents -t $(SANITIZED)
	@cd $(SANITIZED) && CC=gcc GSVR_SANITIZERS=address,undefined $(abspath $(BIN))/python setup.py --quiet build_ext --inplace
	@echo "make: running the tests of the kernels"
	@cd $(SANITIZED) && PYTHONPATH=src GSVR_INSTRUCTIONS=portable ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
		LD_PRELOAD=$$(gcc -print-file-name=libasan.so) $(abspath $(BIN))/python -m pytest -p no:cacheprovider \
		tests/compiled tests/laws tests/backends/test_backends.py tests/backends/test_gaussian_kernels.py \
		tests/backends/test_planes.py tests/render \
		-k "not torch and not triton and not freed_memory" $(PYTEST_OPTIONS)

coverage: $(VENV)/installed-for-development
	@echo "make: running the tests, and counting what they run"
	@$(BIN)/python -m pytest --cov=gsvr $(PYTEST_OPTIONS)

bench-speed: $(VENV)/installed-for-development
	@$(BIN)/python -m benchmarks.speed $(BENCH_OPTIONS)

bench-gpu:
	@$(PYTHON) setup.py --quiet build_ext --inplace
	@PYTHONPATH=src $(PYTHON) -m benchmarks.gpu $(BENCH_OPTIONS)

lint: $(VENV)/installed-for-development
	@echo "make: ruff check"
	@$(BIN)/ruff check
	@echo "make: ruff format --check"
	@$(BIN)/ruff format --check
	@echo "make: clang-format"
	@$(BIN)/clang-format --dry-run --Werror $(C_SOURCES)
	@echo "make: pyright"
	@$(BIN)/pyright --pythonpath $(BIN)/python
	@echo "make: scripts/check_repository.py"
	@$(BIN)/python scripts/check_repository.py

format: $(VENV)/installed-for-development
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format
	@$(BIN)/clang-format -i $(C_SOURCES)

bench-core: $(VENV)/installed-for-development
	@$(BIN)/python -m benchmarks.core

bench: $(VENV)/installed-for-development
	@$(BIN)/python -m benchmarks.compare

bench-full: $(VENV)/installed-for-development
	@$(BIN)/python -m benchmarks.compare --full

bench-robustness: $(VENV)/installed-for-development
	@$(BIN)/python -m benchmarks.robustness $(BENCH_OPTIONS)

bench-uncertainty: $(VENV)/installed-for-development
	@$(BIN)/python -m benchmarks.uncertainty

clean:
	@rm -rf $(VENV) build demo-output src/gsvr/compiled/*.so

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer found: install one or name it, make PYTHON=..." >&2; exit 1; }
	@echo "make: creating $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/installed: $(REQUIREMENTS) | $(BIN)/python
	@echo "make: installing gsvr and what it needs into $(VENV) (a minute the first time)"
	@$(INSTALL) --editable . | $(SHOW_PROGRESS)
	@touch $@

$(VENV)/installed-for-development: $(REQUIREMENTS) | $(BIN)/python
	@echo "make: installing gsvr, PyTorch and the development tools into $(VENV) (minutes the first time)"
	@$(INSTALL) $(DEVELOPMENT_INDEX) --editable '.[dev]' | $(SHOW_PROGRESS)
	@touch $@ $(VENV)/installed
