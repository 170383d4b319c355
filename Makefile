# Everything sets itself up: a machine with Python 3.11 or later and make is enough.
# Programs that start again and again should find the bytecode of what they import.
unexport PYTHONDONTWRITEBYTECODE
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
FLIGHTS := .demo/models/summary.json
NAME ?=
TAG ?=
QUICK ?=
ALL ?=
COVER ?=
ARGS ?=
# Many tests wait for processes that they start: more run side by side than there are cores.
JOBS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 2)
# Pure: no processes, sockets or parts, and no simulations; with style, types and contracts two minutes.
UNIT := tests/codecs tests/config tests/detectors tests/stats tests/evidence tests/shadow
# What runs the compiled form: workers, what they hand over, and the fuzzers.
COMPILED := tests/proxy tests/records tests/routing tests/stats tests/fuzz tests/project/test_compiled.py

.DEFAULT_GOAL := help
.PHONY: help demo quick test test-all test-compiled check bench lint docs pictures recording lock sbom release image cluster cluster-down cluster-test parts mutations clean

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# uv installs several times faster; where it cannot be had, or knows no way to the index, pip does it.
INSTALL = $(PIP) -q uv && $(BIN)/uv pip install -q --python $(BIN)/python -e '.[dev]' \
  || { echo "pip does it, which takes longer …"; $(PIP) --progress-bar off -e '.[dev]'; }
PIP = $(BIN)/python -m pip install --disable-pip-version-check

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "Python 3.11 or later is needed; $(PYTHON) is: $$($(PYTHON) --version 2>&1 | head -n 1)."; \
	       echo "Name another one: make $(or $(MAKECMDGOALS),test) PYTHON=python3.12"; exit 1; }
	@echo "Setting up $(VENV) (once, and again when pyproject.toml changes; a minute or three) …"
	@$(PYTHON) -m venv $(VENV) \
	  || { echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@$(INSTALL)
	@touch $@

demo: ## Real flights, real model servers, the sidecar in between (KEEP=1 stays up, VERBOSE=1 tells more)
	@$(MAKE) -s -j 2 $(READY) $(FLIGHTS)
	@$(BIN)/python -m examples.flights $(if $(KEEP),--keep) $(if $(VERBOSE),--verbose) $(ARGS)

# The model servers' environment and the models, beside our own environment.
$(FLIGHTS): examples/flights/requirements.txt examples/flights/train.py
	@$(PYTHON) -m examples.flights.environment

quick: lint ## Style, types, contracts, pure unit tests without simulations: two minutes
	$(BIN)/python -m pytest -q -n 2 -m 'not simulation' $(UNIT) $(ARGS)

test: $(READY) ## What CI runs: lint, types, contracts, tests with real parts that are downloaded (20 to 25 minutes)
	@$(MAKE) --no-print-directory -j 2 lint parts
	@$(MAKE) --no-print-directory check

test-all: $(READY) ## Everything: builds Helm, an API server, Sloth, Prometheus 3 and model servers first (half an hour)
	@$(MAKE) --no-print-directory test ALL=1

# The modules go into build/compiled; every process of the tests that finds the variable runs them.
test-compiled: $(READY) ## Compile the data plane, and test proxy, records and fuzzers in that form
	$(BIN)/python -m tools.compiled
	UNDERSTUDY_COMPILED=$(CURDIR)/build/compiled $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile $(COMPILED) $(ARGS)
	UNDERSTUDY_COMPILED=$(CURDIR)/build/compiled $(BIN)/python -m tests.fuzz.forms_fuzz --inputs 20000

check: $(READY) ## The tests alone (ARGS='-k name' to choose, COVER=1 for coverage)
	$(BIN)/python -m pytest --cache-clear -n $(JOBS) --dist loadfile --no-loadscope-reorder $(if $(ALL),--all) $(if $(COVER),--cov --cov-report=term) $(ARGS) \
	  || $(BIN)/python -m tools.again $$?

bench: $(READY) ## Benchmarks against peers (NAME=proxy for one, QUICK=1 for a short form)
	$(BIN)/python -m benchmarks $(NAME) $(if $(QUICK),--quick) $(ARGS)

lint: $(READY) ## Style, types and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY) ## Regenerate the reference pages and dashboards, and build the site (build/site), links checked
	$(BIN)/python -m tools.dashboards
	$(BIN)/python -m tools.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

pictures: $(READY) ## Run the demo and take the pictures of the dashboards for docs/
	$(BIN)/python -m tools.dashboards.pictures $(ARGS)

recording: $(READY) ## Record `understudy demo` as text, and take the picture of its page, for docs/
	$(BIN)/python -m tools.recording

lock: $(READY) ## Pin and hash what the container image holds (deploy/*.lock)
	$(BIN)/python -m tools.lock $(ARGS)

sbom: $(READY) ## What the container image holds, as CycloneDX (build/sbom.json)
	$(BIN)/python -m tools.sbom $(ARGS)

release: $(READY) ## Wheel, sdist, chart, SBOM, image: built twice, checked, in dist/ (TAG=v0.2.0)
	$(BIN)/python -m tools.release $(if $(TAG),--tag $(TAG)) $(ARGS)

image: ## Build the container image (needs docker or podman)
	deploy/image/build.sh $(ARGS)

cluster: $(READY) ## Start a Kubernetes cluster of one node (root; tools/cluster/README.md)
	$(BIN)/python -m tools.parts.kubernetes cluster
	$(BIN)/python -m tools.cluster up

cluster-down: $(READY) ## Stop that cluster, and remove what it left
	$(BIN)/python -m tools.cluster down

cluster-test: $(READY) ## The chart in such a cluster, under load (root; 20 minutes once its parts are built)
	$(BIN)/python -m tools.parts.kubernetes cluster
	$(BIN)/python -m tools.parts.containers
	UNDERSTUDY_CLUSTER=1 $(BIN)/python -m pytest --all -n 0 tests/cluster $(ARGS)

parts: $(READY) ## Fetch the real parts that tests talk to, without root (ALL=1: build the rest, too)
	@echo "Fetching parts for the tests (once; a minute or two) …"
	$(BIN)/python -m tools.parts $(if $(ALL),all)

mutations: $(READY) ## Break each guard in a copy of the tree; a test must notice (ARGS=text to choose)
	$(BIN)/python -m tools.mutations $(ARGS)

clean: ## Remove what the other targets made
	rm -rf $(VENV) .demo .parts .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -f .coverage .coverage.*
