# SPDX-License-Identifier: MIT
# `make setup` is quick when nothing changed: each step leaves a stamp that names what it depends on.
PYTHON ?= $(shell for p in /usr/bin/python3 python3; do $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
# Meson's programs come from .venv, and so does the Python that they run.
export PATH := $(CURDIR)/$(BIN):$(PATH)

SOURCES := $(shell find tracer miner synth shim kmod -not -path 'kmod/vm/*' -not -name '*.pyc' -not -name '__pycache__' 2>/dev/null)

.PHONY: setup demo profile test test-vm soak bench bench-vm lint format clean
.DELETE_ON_ERROR:

setup: $(STAMPS)/install

$(STAMPS)/packages: tools/debian-packages
	@tools/debian-packages
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/test-packages: tools/debian-packages $(STAMPS)/packages
	@tools/debian-packages test
	@touch $@

$(STAMPS)/dependencies: pyproject.toml tools/dependencies.py $(STAMPS)/packages
	@test -n "$(PYTHON)" || { echo "setup: no Python 3.11 or later with venv: apt-get install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python tools/dependencies.py pyproject.toml > $(STAMPS)/requirements.new
	@cmp -s $(STAMPS)/requirements.new $(STAMPS)/requirements || \
		$(BIN)/pip install -q --disable-pip-version-check -r $(STAMPS)/requirements.new
	@mv $(STAMPS)/requirements.new $(STAMPS)/requirements && touch $@

# A plain install: what is tested is what a user gets. Meson's own folder makes it incremental.
$(STAMPS)/install: $(STAMPS)/dependencies meson.build meson_options.txt pyproject.toml $(SOURCES)
	@test -f build/build.ninja || $(BIN)/meson setup build -Dbuildtype=debugoptimized
	$(BIN)/pip install -q --disable-pip-version-check --no-build-isolation --no-deps \
		--force-reinstall --config-settings=build-dir=build .
	@touch $@

# The library with fences that can be left out, for tests only.
$(STAMPS)/fence: $(STAMPS)/install
	@test -f build-fence/build.ninja || $(BIN)/meson setup build-fence -Dfence_tests=true > /dev/null
	$(BIN)/ninja -C build-fence --quiet
	@touch $@

demo: setup
	$(BIN)/python -m bench.demo

# The shipped profile, anew from datasets/ (datasets/record.py records those).
profile: setup
	$(BIN)/python -m synth.shipped

test: setup $(STAMPS)/fence $(STAMPS)/test-packages
	$(BIN)/python -m pytest

# Kernels of Debian, booted under software emulation: docs/development.md.
test-vm: setup
	$(BIN)/python -m pytest tests/vm

soak: setup $(STAMPS)/fence $(STAMPS)/test-packages
	$(BIN)/python -m pytest -m 'soak or not soak'

bench: setup
	$(BIN)/python -m bench.main_job
	$(BIN)/python -m bench.overhead
	$(BIN)/python -m bench.answer_cost
	$(BIN)/python -m bench.coverage
	$(BIN)/python -m bench.predictions
	$(BIN)/python -m bench.never_slower
	$(BIN)/python -m bench.leave_one_out
	$(BIN)/python -m bench.wrong_profile
	$(BIN)/python -m bench.tracing

C_FILES = $(shell git ls-files '*.c' '*.h')

bench-vm: setup
	@$(BIN)/python -m bench.vm
	@$(BIN)/python -m bench.module

lint: $(STAMPS)/dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(C_FILES)

format: $(STAMPS)/dependencies
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(C_FILES)

clean:
	rm -rf $(VENV) build build-fence build-vm
