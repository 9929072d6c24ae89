# `make` runs the whole pipeline, `make test` the tests; both make .venv themselves.
# Needs Python 3.11 or newer, git and make. Another Python: make PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PLOTS := .dvc/offline_plots.html
# The stages that dvc starts find the environment's Python.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := pipeline
.PHONY: help pipeline install test lint types unit slow format clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

pipeline: $(VENV)/installed $(PLOTS) ## Run what is out of date, from raw text to GGUF; write a report, print metrics
	@$(BIN)/dvc repro
	@$(BIN)/atlas report
	@$(BIN)/atlas show

install: $(VENV)/installed ## Make .venv and install Atlas into it

test: lint types unit ## Check style and types, and run the tests (minutes)

lint: $(VENV)/installed-dev ## Check style and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/installed-dev ## Check types
	@$(BIN)/mypy

unit: $(VENV)/installed-dev ## Run the tests; with COVERAGE=1 what they cover too, slower
	@$(BIN)/pytest -n 2 --dist worksteal --durations 10 $(if $(COVERAGE),--cov --cov-report=term)

slow: $(VENV)/installed-dev ## Run the tests that take minutes each
	@$(BIN)/pytest -n 2 -m slow

format: $(VENV)/installed-dev ## Put the code into the one format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean: ## Remove checkpoints of interrupted runs and half-written outputs (no results)
	@rm -rf .ckpt
	@find data models metrics -name '.*.partial' -prune -exec rm -rf {} +

$(VENV)/python: # recipe below checks the version before anything is installed
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: $(PYTHON) is older than 3.11; name a newer one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/installed: $(VENV)/python pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(PLOTS): | $(VENV)/installed # dvc plots then draws without a network
	@$(BIN)/atlas offline-plots

$(VENV)/installed-dev: $(VENV)/installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
