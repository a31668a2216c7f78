# Everything is made from here. GNU make 3.81 or later and Python 3.11 to 3.13 are all that is needed.
#
# A stamp in .venv stands for each step that is done; it is done again when its lock file changes.
# So a second run downloads nothing, works offline, and costs nothing.

PYTHON ?=
PYTHONS := $(or $(PYTHON),python3.13 python3.12 python3.11 python3 python)
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
LOG := $(VENV)/setup.log
MADE := $(VENV)/.made
BUILD := $(VENV)/.build
CORE := $(VENV)/.core
FULL := $(VENV)/.full
DEV := $(VENV)/.dev
JARS := $(VENV)/.jars
PEERS := .venv-peers/.made
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install

# Runs pip quietly; on failure one line says what to do, and the log has the rest.
define install
	@$(PIP) $(1) >$(LOG) 2>&1 || { \
	  if grep -q 'No space left' $(LOG); then why='the disk is full: make room'; \
	  elif grep -q 'DO NOT MATCH THE HASHES' $(LOG); then \
	    why='a package is not one that the lock names, nothing was installed: ask whoever runs the network or package index'; \
	    grep -E '^ +(.* from|Expected|Got) ' $(LOG) >&2; \
	  else why='check the network (and the proxy or package index, if you use one)'; fi; \
	  echo "fleetpulse: installing Python packages failed; $$why, then run make again (log: $(LOG))" >&2; \
	  exit 1; }
endef

.DEFAULT_GOAL := help
.PHONY: help setup setup-core demo test chaos mutants test-daily lint bench bench-live bench-quick lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile
	@echo '  ARGS="..." reaches demo, test, chaos, mutants and bench*; PYTHON=... chooses the Python'

setup: $(FULL) $(JARS) ## Prepare this machine for every role: Python packages, Kafka, Spark
	@echo "ready: $(BIN)/fleetpulse --help"

setup-core: $(CORE) ## The same for a producer or consumer machine: no Spark, no Kafka
	@echo "ready: $(BIN)/fleetpulse --help"

demo: $(FULL) $(JARS) ## Run the whole pipeline on this machine
	@$(BIN)/fleetpulse demo $(ARGS)

test: $(DEV) $(JARS) ## Run all tests, with a real Kafka and a real Spark
	@$(BIN)/python -m pytest $(ARGS)

chaos: $(DEV) $(JARS) ## Break everything hundreds of times and print what was lost: nothing (40 minutes)
	@FLEETPULSE_CHAOS=full $(BIN)/python -m pytest tests/chaos tests/e2e/test_replay_kills.py \
	  tests/hosts/test_network_faults.py tests/property/test_sink_machine.py tests/fuzz $(ARGS)

mutants: $(DEV) $(JARS) ## Change the source in dozens of wrong ways and name the test that notices each (3 minutes)
	@$(BIN)/python tests/mutants/runner.py $(ARGS)

test-daily: $(DEV) $(JARS) ## Compare engine and Spark over a day of a fleet (5 million messages, minutes)
	@$(BIN)/python -m pytest -q -s tests/daily/daily_engines.py $(ARGS)

lint: $(DEV) ## Check style, types, imports and the rules of the tree
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest -q tests/unit/test_tree.py

bench: $(FULL) $(JARS) $(PEERS) ## Measure this machine and write bench/results (35 minutes)
	@$(BIN)/python bench/run.py $(ARGS)
	@$(if $(strip $(ARGS)),,$(BIN)/python bench/live.py)

bench-live: $(FULL) $(JARS) $(PEERS) ## The live commands and other systems alone (25 minutes)
	@$(BIN)/python bench/live.py $(ARGS)

bench-quick: $(FULL) $(JARS) $(PEERS) ## The same, small: prints the table (3 minutes)
	@$(BIN)/python bench/live.py --quick $(ARGS)

# Other systems are welcome, not needed: the benchmark names the ones that are not there.
$(PEERS): bench/requirements-peers.txt bench/peers/jars.lock | $(FULL)
	@$(BIN)/python bench/live.py --setup >$(LOG) 2>&1 && touch $@ || \
	  echo "fleetpulse: the other systems could not be installed and do not take part (log: $(LOG))" >&2

# The core lock comes first and the others keep to it, so that any of them can be installed together.
COMPILE := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
  --no-annotate --no-emit-index-url --custom-compile-command "make lock"

lock: $(DEV) ## Choose the newest versions again: requirements*.txt and jars.lock, the peers' too
	@$(COMPILE) --group build --output-file requirements-build.txt
	@$(COMPILE) pyproject.toml --output-file requirements-core.txt
	@$(COMPILE) pyproject.toml --extra spark --extra broker --constraint requirements-core.txt \
	  --output-file requirements.txt
	@$(COMPILE) --group dev --constraint requirements-build.txt --constraint requirements.txt \
	  --output-file requirements-dev.txt
	@$(BIN)/python -c 'import os; from fleetpulse.roles.setup import relock; relock(os.environ)'
	@$(COMPILE) bench/requirements-peers.in --output-file bench/requirements-peers.txt
	@$(BIN)/python bench/live.py --lock

clean: ## Remove what make made here; outputs and the user's cache stay
	@rm -rf $(VENV) .venv-peers build src/*.egg-info .coverage .hypothesis .import_linter_cache .mypy_cache \
	  .pytest_cache .ruff_cache

# A candidate must run (a pyenv shim may not), be of the right age, and bring venv (on Debian a
# package of its own).
$(MADE):
	@for python in $(PYTHONS); do \
	  "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	    2>/dev/null || continue; \
	  version=$$("$$python" -c 'import platform; print(platform.python_version())'); \
	  if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	    incomplete="$$python $$version has no venv module (Debian, Ubuntu: apt install python3-venv)"; \
	    continue; \
	  fi; \
	  echo "making $(VENV) with $$python $$version"; \
	  "$$python" -m venv --clear $(VENV) || { \
	    echo "fleetpulse: cannot make $(VENV) here: check that the disk has room and that you may write" >&2; \
	    exit 2; }; \
	  touch $@; exit 0; \
	done; \
	found=; for python in $(PYTHONS); do \
	  version=$$("$$python" -c 'import platform; print(platform.python_version())' 2>/dev/null) \
	    && found="$$found $$python=$$version"; \
	done; \
	echo "fleetpulse: wanted Python 3.11, 3.12 or 3.13, found:$${found:- none}$${incomplete:+; $$incomplete}. Install one, or name it: make PYTHON=/path/to/python3.12" >&2; \
	exit 2

$(BUILD): requirements-build.txt $(MADE)
	$(call install,--require-hashes --only-binary :all: -r requirements-build.txt)
	@touch $@

$(CORE): requirements-core.txt pyproject.toml $(BUILD)
	@echo "installing Python packages"
	$(call install,--require-hashes --only-binary :all: -r requirements-core.txt)
	$(call install,--no-index --no-deps --no-build-isolation --editable .)
	@touch $@

# PySpark comes as source: it is built with the locked setuptools, not with one from the network.
$(FULL): requirements.txt $(CORE)
	@echo "installing Spark and Java (430 MB to download the first time)"
	$(call install,--require-hashes --no-build-isolation --use-pep517 -r requirements.txt)
	@touch $@

$(DEV): requirements-dev.txt $(FULL)
	@echo "installing the tools for tests and checks"
	$(call install,--require-hashes --only-binary :all: -r requirements-dev.txt)
	@touch $@

$(JARS): src/fleetpulse/edges/jars/jars.lock $(FULL)
	@$(BIN)/fleetpulse setup
	@touch $@
