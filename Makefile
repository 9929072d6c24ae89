# `make` runs the whole pipeline, `make test` the tests; both create .venv first.
# Needs Python 3.11 or newer, git and make. To choose a Python: make PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PLOTS := .dvc/offline_plots.html
# So that the stages DVC starts use the environment's Python.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := pipeline
.PHONY: help pipeline install test lint types unit slow format clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

pipeline: $(VENV)/installed $(PLOTS) ## Run outdated stages, from raw text to GGUF; write a report, print metrics
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

$(VENV)/python: # check the version before installing anything
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: $(PYTHON) is older than 3.11; choose a newer one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/installed: $(VENV)/python pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(PLOTS): | $(VENV)/installed # so that dvc plots works without a network
	@$(BIN)/atlas offline-plots

$(VENV)/installed-dev: $(VENV)/installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
