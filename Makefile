# Every target starts from nothing: it makes .venv and installs what it needs, only when something
# changed. `make help` lists them.

# A Python to use instead of the first one found that is new enough: make PYTHON=python3.13 test
PYTHON ?=
# Passed on to the program a target runs: make test ARGS="-k socks5"
ARGS ?=

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input
PACKAGE := $(PIP) install --no-deps --no-build-isolation --editable .
SOURCES := src tests bench tools

.DEFAULT_GOAL := help
.PHONY: help demo test check lint format bench natmatrix pathmatrix irohmatrix vpnlab soak multipath-soak iroh-versions rust man packages images deploy audit lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/runtime.stamp ## show a real tunnel at work, on this machine only
	$(BIN)/tunnel-rs demo $(ARGS)

test: $(VENV)/development.stamp ## run the test suite, in as many processes as there are cores
	@# Names of Unix sockets may have some hundred characters: a short place for temporary files.
	place=$$(mktemp -d) && trap 'rm -rf "$$place"' EXIT && \
	  $(BIN)/python -m pytest --numprocesses auto --dist loadgroup --basetemp "$$place/t" $(ARGS)

check: lint test ## everything that CI checks

lint: $(VENV)/development.stamp ## format, style, types, layers, one test file per module
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	MYPYPATH=src:. $(BIN)/mypy --explicit-package-bases bench tools
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --quiet tests/test_layout.py

format: $(VENV)/development.stamp ## put the code into the project's format
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

bench: $(VENV)/development.stamp ## measure beside direct TCP, ssh -L, asyncssh and stock aioquic
	$(BIN)/python bench/forward.py $(ARGS)

natmatrix: $(VENV)/development.stamp ## how tunnel-rs-ice connects through which NATs (needs root)
	$(BIN)/python tools/nat_matrix.py

vpnlab: $(VENV)/development.stamp ## the VPN with ten clients, and without network for a minute (needs root)
	VPN_CLIENTS=10 VPN_OUTAGE=60 $(BIN)/python -m pytest tests/netns -k vpn $(ARGS)

pathmatrix: $(VENV)/development.stamp ## paths of tunnel-rs: NATs, changing networks, bad links, outages (needs root)
	$(BIN)/python tools/path_matrix.py $(ARGS)

irohmatrix: $(VENV)/development.stamp ## how real iroh and tunnel-rs get direct paths through which NATs (needs root)
	$(BIN)/python tools/iroh_matrix.py $(ARGS)

soak: $(VENV)/development.stamp ## 30 minutes of mixed load; fails on growth
	$(BIN)/python bench/soak.py $(ARGS)

multipath-soak: $(VENV)/development.stamp ## 100,000 random connections over several paths
	$(BIN)/python tools/multipath_soak.py $(ARGS)

iroh-versions: $(VENV)/development.stamp ## the tests with real iroh, for other versions of it
	PYTHON=$(BIN)/python tools/iroh_versions.sh $(ARGS)

rust: $(VENV)/development.stamp ## run the interop suites against the real iroh servers (needs cargo)
	PYTHON=$(BIN)/python tests/interop/rust_servers.sh

man: $(VENV)/development.stamp ## write the manual pages anew from the commands
	$(BIN)/python tools/man_pages.py

packages: $(VENV)/development.stamp ## install the wheel by pip, pipx and uv, with every Python here
	$(BIN)/python tools/packages.py $(ARGS)

images: ## build the container images and try them (needs docker or podman, and an image registry)
	container-deploy/build.sh $(ARGS)

deploy: $(VENV)/development.stamp ## check chart, manifests and workflows with tools that go fetches
	tools/check_deploy.sh

audit: $(VENV)/development.stamp ## known holes in what we build on, and secrets in files and history
	$(PIP) install pip-audit detect-secrets
	tools/audit.sh

lock: $(VENV)/runtime.stamp ## resolve the dependency ranges anew into constraints*.txt
	$(PIP) install --upgrade uv
	PATH="$(BIN):$$PATH" $(BIN)/python tools/lock.py

clean: ## remove the virtual environment, caches and results
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	rm -rf dist build bench/results
	find $(SOURCES) -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/runtime.stamp: constraints.txt pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes --requirement constraints.txt
	$(PACKAGE)
	@touch $@

$(VENV)/development.stamp: constraints-dev.txt constraints.txt pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes --requirement constraints-dev.txt
	$(PACKAGE)
	@touch $@ $(VENV)/runtime.stamp

$(BIN)/python:
	@for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
	  if "$$python" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	  then echo "$$python -m venv $(VENV)"; exec "$$python" -m venv --clear $(VENV); fi; \
	done; \
	echo "make: no Python 3.11 or newer with its venv module here ($(or $(PYTHON),tried python3 to python3.14)): install one (Debian: python3 python3-venv), or name it with PYTHON=" >&2; \
	exit 1
