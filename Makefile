# `make` runs the whole pipeline, `make test` the tests; both create .venv first.
# Needs Python 3.11 or newer, git and make. To choose a Python: make PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PLOTS := .dvc/offline_plots.html
PIP := $(BIN)/python -m pip install --disable-pip-version-check
SHELL_PATH := $(PATH)
# So that the stages DVC starts use the environment's Python.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Not empty if .venv came along with a moved or copied folder, is incomplete, or lost its Python.
BROKEN := $(shell [ ! -e $(VENV)/pyvenv.cfg ] || ( \
	. $(VENV)/bin/activate && [ "$$VIRTUAL_ENV" -ef $(VENV) ] && $(BIN)/python -c \
	'import pathlib, sys, sysconfig; sys.exit(not pathlib.Path(sysconfig.get_path("purelib")).is_dir())' \
	) 2> /dev/null || echo yes)

.DEFAULT_GOAL := pipeline
.PHONY: help pipeline install test lint types unit slow format clean repository rebuild

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

pipeline: $(VENV)/installed $(PLOTS) ## Run outdated stages, from raw text to GGUF; write a report, print the results
	@$(BIN)/dvc repro
	@$(BIN)/atlas report > /dev/null
	@$(BIN)/atlas show

install: $(VENV)/installed ## Create .venv and install Atlas into it

test: lint types unit ## Check style and types, run the tests (minutes)

lint: $(VENV)/installed-dev ## Check style and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/installed-dev ## Check types
	@$(BIN)/mypy

unit: $(VENV)/installed-dev ## Run the tests; COVERAGE=1 adds slow ones and measures coverage
	@$(BIN)/pytest -n 2 --dist worksteal --durations 10 $(if $(COVERAGE),-m 'not very_slow' --cov --cov-report=term)

slow: $(VENV)/installed-dev ## Run the slow tests (seconds to minutes each)
	@$(BIN)/pytest -n 2 -m 'slow or very_slow'

format: $(VENV)/installed-dev ## Format the code and fix lint
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean: ## Remove checkpoints of interrupted runs and partial outputs (no results)
	@rm -rf .ckpt
	@find data models metrics -name '.*.partial' -prune -exec rm -rf {} +

repository: # DVC needs one; look before anything is installed
	@problem=$$(LC_ALL=C git rev-parse 2>&1) || { case "$$problem" in \
	*safe.directory*) problem="another user owns this repository; if you trust it, run: git config --global --add safe.directory $${problem##*safe.directory }" ;; \
	*"not a git repository"*) problem="DVC needs a git repository, and this folder is in none; run: git init && git add -A && git commit -m Atlas" ;; \
	*) problem="DVC needs git: $$problem" ;; esac; echo "error: $$problem" | head -n 1 >&2; exit 1; }

$(VENV)/python: PATH := $(SHELL_PATH) # not the Python of .venv, which may have to go
$(VENV)/python: $(if $(BROKEN),rebuild) | repository
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || { \
		echo "error: $(PYTHON) is missing or older than 3.11; choose another one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { \
		echo "error: $(PYTHON) has no module venv; on Debian and Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	@[ -z "$(BROKEN)" ] || echo "note: .venv was made in another folder, is incomplete or has lost its Python; building it anew" >&2
	@$(PYTHON) -m venv $(if $(BROKEN),--clear) $(VENV)
	@touch $@

$(VENV)/installed: $(VENV)/python pyproject.toml
	@echo "Installing into .venv: 3 GB to download with CUDA, as on Linux, or 0.5 GB without; a few minutes" >&2
	@$(PIP) --editable .
	@touch $@

# So that dvc plots works without a network, and takes the names in data as text.
$(PLOTS): $(wildcard src/atlas/pipeline/page.* src/atlas/tools/report/plots.*) | $(VENV)/installed
	@$(BIN)/atlas offline-plots

$(VENV)/installed-dev: $(VENV)/installed
	@$(PIP) --editable '.[dev]'
	@touch $@
