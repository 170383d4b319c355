# Everything sets itself up: a machine with Python 3.11 or later and make is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NAME ?=
QUICK ?=
SERVERS ?=
COVER ?=
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test check bench lint docs pictures lock sbom image parts kubernetes mutations clean

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "Python 3.11 or later is needed; $(PYTHON) is: $$($(PYTHON) --version 2>&1 | head -n 1)."; \
	       echo "Name another one: make $(or $(MAKECMDGOALS),test) PYTHON=python3.12"; exit 1; }
	@echo "Setting up $(VENV) (once, and again when pyproject.toml changes) …"
	@$(PYTHON) -m venv $(VENV) \
	  || { echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -e '.[dev]'
	@touch $@

demo: $(READY) ## Real flights, real model servers, the sidecar in between (KEEP=1 stays up)
	$(BIN)/python -m examples.flights $(if $(KEEP),--keep) $(ARGS)

test: lint parts check ## Everything: lint, types, contracts, tests with real parts

check: $(READY) ## The tests alone (ARGS='-k name' to choose, COVER=1 for coverage)
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(if $(COVER),--cov --cov-report=term) $(ARGS)

bench: $(READY) ## Benchmarks against peers (NAME=proxy for one, QUICK=1 for a short form)
	$(BIN)/python -m benchmarks $(NAME) $(if $(QUICK),--quick) $(ARGS)

lint: $(READY) ## Style, types and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY) ## Regenerate the reference pages in docs/ and the dashboards
	$(BIN)/python -m deploy.dashboards
	$(BIN)/python -m tests.docs

pictures: $(READY) ## Run the demo and take the pictures of the dashboards for docs/
	$(BIN)/python -m deploy.dashboards.pictures $(ARGS)

lock: $(READY) ## Pin and hash what the container image holds (deploy/*.lock)
	$(BIN)/python -m deploy.image.lock $(ARGS)

sbom: $(READY) ## What the container image holds, as CycloneDX (build/sbom.json)
	$(BIN)/python -m deploy.image.sbom $(ARGS)

image: ## Build the container image (needs docker or podman)
	deploy/image/build.sh $(ARGS)

parts: $(READY) ## Fetch the real parts that tests talk to, without root (SERVERS=1: model servers too)
	$(BIN)/python -m tests.parts
	$(BIN)/python -m tests.kubeparts
	$(BIN)/python -m tests.npmparts
	$(BIN)/python -m tests.slo.sloth
	$(if $(SERVERS),$(BIN)/python -m tests.servers)

kubernetes: $(READY) parts ## The chart in a real API server (built once: about ten minutes), and checkov
	$(BIN)/python -m tests.kubeparts all
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/chart tests/inject $(ARGS)

mutations: $(READY) ## Break each guard in a copy of the tree; a test must notice (ARGS=text to choose)
	$(BIN)/python -m tools.mutations $(ARGS)

clean: ## Remove what the other targets made
	rm -rf $(VENV) .demo .parts .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -f .coverage .coverage.*
