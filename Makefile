# Every target sets up what it needs; `make demo` and `make test` need only Python 3.11 or newer.
#
#   make setup TORCH_INDEX=https://download.pytorch.org/whl/cpu     torch without GPU libraries
#   make setup PYTHON=/path/to/python3.11                           another interpreter

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEVICE := .venv-device
DEVICE_READY := $(DEVICE)/.ready
PINS := pyproject.toml constraints.txt
PIP := -m pip --disable-pip-version-check --quiet install --constraint constraints.txt
DEVICE_TESTS := $(wildcard tests/core tests/bundle tests/edge tests/faults tests/project)
NOTEBOOKS := find notebooks pipelines -name '*.ipynb' -not -path '*/.ipynb_checkpoints/*'
STRIP_KEYS := metadata.papermill metadata.widgets cell.metadata.papermill cell.metadata.execution

PYTHON ?=
TORCH_INDEX ?=
EXTRA_INDEX := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-desk test-device lint check faults bench lab mlflow format pins clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

# The first interpreter that is new enough: what the user names, python3.11, python3.
define make_venv
	@set -e; [ -x $(1)/bin/python ] || { \
	  for p in $(PYTHON) python3.11 python3; do \
	    if "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	      echo "Making $(1) with $$("$$p" --version)"; "$$p" -m venv $(1); exit 0; fi; done; \
	  echo "error: no Python 3.11 or newer found; install python3.11 or say make PYTHON=/path/to/it" >&2; \
	  exit 3; }
endef

setup: $(READY) ## Install everything into .venv/ (two to three minutes the first time)

$(READY): $(PINS)
	$(call make_venv,$(VENV))
	@echo "Installing the workbench into $(VENV) …"
	@$(BIN)/python $(PIP) $(EXTRA_INDEX) --editable '.[dev]'
	@touch $@

$(DEVICE_READY): $(PINS)
	$(call make_venv,$(DEVICE))
	@echo "Installing the device's base install into $(DEVICE) …"
	@$(DEVICE)/bin/python $(PIP) --editable . pytest hypothesis
	@touch $@

demo: $(READY) ## Run the whole loop on this machine
	$(BIN)/aiotkit demo

test: test-desk test-device ## Run all tests, then the device's again on the base install alone

test-desk: $(READY)
	$(BIN)/python -m pytest

test-device: $(DEVICE_READY)
	$(DEVICE)/bin/python -m pytest -m 'not desk and not faults' $(DEVICE_TESTS)

lint: $(READY) ## Format, rules, types, layers, notebooks without outputs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(NOTEBOOKS) -exec $(BIN)/nbstripout --verify --extra-keys '$(STRIP_KEYS)' {} +

check: lint test ## Everything that must hold before a commit

faults: $(READY) ## The long fault and fuzz campaigns
	$(BIN)/python -m pytest -m faults tests

bench: $(READY) ## Run every benchmark and render one page
	$(BIN)/python benchmarks/run_all.py

lab: $(READY) ## Open JupyterLab on the notebooks
	$(BIN)/jupyter lab notebooks

mlflow: $(READY) ## Open MLflow on the demo's store (make demo first)
	@[ -f demo-run/mlflow.db ] || { echo "error: demo-run/mlflow.db is not there; run make demo first" >&2; exit 2; }
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow server --backend-store-uri sqlite:///demo-run/mlflow.db \
	  --artifacts-destination demo-run/mlartifacts

format: $(READY) ## Format the code and strip notebooks
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(NOTEBOOKS) -exec $(BIN)/nbstripout --extra-keys '$(STRIP_KEYS)' {} +

pins: $(READY) ## Write constraints.txt and environment.yml from what is installed
	$(BIN)/python deploy/pins.py freeze
	$(BIN)/python deploy/pins.py conda

clean: ## Remove caches, builds and runs; keep .venv/
	rm -rf build dist demo-run .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache $(DEVICE)
	find aiotkit tests benchmarks deploy -name __pycache__ -type d -exec rm -rf {} +
