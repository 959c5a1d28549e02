# One command for each thing that people do here. `make` alone tells what there is.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
# The newest of these that is at least 3.11 is used; say `make setup PYTHON=/path/to/python3` for another.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$python"; break; }; done)
STAMP := $(VENV)/.made-from-the-lock
LOCKS := requirements-setup.lock requirements.lock
TESTS ?= tests
PYTEST_OPTIONS ?= -q
# Tests wait more than they compute: one more runs at a time than there are cores. WORKERS=0 runs them in one process.
WORKERS ?= $(shell echo $$(($$(nproc) + 1)))

# The dashboard, built from web/ whenever something there has changed.
WEB := src/borough/web/static/index.html
WEB_SOURCES := $(shell find web -name node_modules -prune -o -name __pycache__ -prune -o -type f -print)

.PHONY: help setup web up demo demo-fleet test lint format types openapi site docs bench soak wheel lock clean

help: ## Tell what there is
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

unexport PYTHONDONTWRITEBYTECODE  # programs start twice as fast from modules that were compiled once

# -- the environments --------------------------------------------------------------------------------------------------

define new_environment
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or later with venv and pip here; on Debian: apt-get install python3 python3-venv" >&2; exit 1; }
	@test -x $(1)/bin/python || "$(PYTHON)" -m venv $(1)
	@$(1)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-setup.lock
endef

setup: $(STAMP) $(WEB) ## Make .venv from the lock, and the dashboard (done by all others when needed)

$(STAMP): $(LOCKS) pyproject.toml
	$(call new_environment,$(VENV))
	@$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes $(LOCKS)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "made $(VENV) with $$($(BIN)/python --version)"

# Tools whose dependencies must not meet ours: .venv-schemathesis from requirements-schemathesis.lock, and so on.
.venv-%/.made-from-the-lock: requirements-%.lock requirements-setup.lock
	$(call new_environment,.venv-$*)
	@.venv-$*/bin/uv pip sync --quiet --compile-bytecode --python .venv-$*/bin/python --require-hashes requirements-setup.lock $<
	@touch $@
	@echo "made .venv-$*"

web: $(WEB) ## Build the dashboard, if its sources are newer

$(WEB): $(WEB_SOURCES) | $(STAMP)
	@$(BIN)/python web/build.py
	@echo "built the dashboard into $(@D)"

# -- running -----------------------------------------------------------------------------------------------------------

up: $(STAMP) $(WEB) ## Start everything on this machine, on 127.0.0.1:8080
	@exec $(BIN)/borough up

demo: $(STAMP) $(WEB) ## The main job on real input, in under a minute
	@exec $(BIN)/borough demo

demo-fleet: $(STAMP) $(WEB) ## Three hosts on this machine, killed and found again, in about two minutes
	@exec $(BIN)/borough demo-fleet

# -- checking ----------------------------------------------------------------------------------------------------------

test: $(STAMP) $(WEB) .venv-schemathesis/.made-from-the-lock .venv-packaging/.made-from-the-lock ## Run every test that this machine can run (BOROUGH_REQUIRE=all: or fail)
	@$(BIN)/pytest $(PYTEST_OPTIONS) -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(TESTS)

lint: $(STAMP) ## Style, types, import contracts, dead code, dependencies, host names, the API documents
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/deptry src
	$(BIN)/vulture
	$(BIN)/python web/build.py --check
	@bash .ci/no-hosts
	$(BIN)/python -m borough.openapi --check

format: $(STAMP) ## Put the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP) ## Check types only
	$(BIN)/mypy

openapi: $(STAMP) ## Write docs/openapi from the routes
	$(BIN)/python -m borough.openapi --write

site: $(STAMP) .venv-docs/.made-from-the-lock ## Build these pages and the references of commands and routes into site/
	@$(BIN)/python packaging/references.py build/references
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --clean
	@echo "the pages are in site/"

docs: site ## Build the pages; check that links resolve, commands exist and tables agree with the code
	$(BIN)/pytest -q tests/test_docs.py tests/test_architecture.py

bench: $(STAMP) $(WEB) .venv-bench/.made-from-the-lock ## Measure the headline figures and write them into docs/performance.md
	$(BIN)/python -m bench $(BENCH)

soak: $(STAMP) $(WEB) ## Ten minutes of random kills
	BOROUGH_SOAK_S=600 $(BIN)/pytest $(PYTEST_OPTIONS) tests/faults

wheel: $(STAMP) $(WEB) ## Build the wheel into dist/
	$(BIN)/uv build --quiet --wheel --no-build-isolation --python $(BIN)/python --out-dir dist

# -- keeping -----------------------------------------------------------------------------------------------------------

COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header $(UPGRADE)

lock: ## Make the locks anew from pyproject.toml (UPGRADE=--upgrade takes newer releases)
	$(call new_environment,$(VENV))
	$(COMPILE) --group setup -o requirements-setup.lock
	$(COMPILE) --group dev pyproject.toml -o requirements.lock
	$(COMPILE) --group schemathesis -o requirements-schemathesis.lock
	$(COMPILE) --group docs -o requirements-docs.lock
	$(COMPILE) --group packaging -o requirements-packaging.lock
	$(COMPILE) --group bench -o requirements-bench.lock
	$(COMPILE) pyproject.toml -o packaging/requirements.lock
	cd web && npm install --package-lock-only --ignore-scripts --omit-lockfile-registry-resolved --no-audit --no-fund
	cd tests/e2e/viewers && npm install --package-lock-only --ignore-scripts --omit-lockfile-registry-resolved --no-audit --no-fund

clean: ## Remove what can be made again (environments, caches, reports); never a town
	rm -rf $(VENV) .venv-schemathesis .venv-packaging .venv-docs .venv-bench .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	rm -rf reports build dist site tests/e2e/viewers/node_modules web/node_modules src/borough/web
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
