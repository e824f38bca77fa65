# `make` lists the targets. All they need is make and a Python of 3.11 or newer; all they make is $(VENV).
#
# The interpreter is PYTHON if that is given, else the first in PYTHONS that runs. A venv belongs to one interpreter, so
# another interpreter takes another venv: make test PYTHON=python3.13 VENV=.venv313

VENV ?= .venv
PYTHON ?=
PYTHONS := $(or $(PYTHON),python3 python3.13 python3.12 python3.11)
PYTEST_ARGS ?= -n auto
LOCK_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
SOURCES := gateway upstreams inspection settings demo tests bench manage.py

# Found by running it: a pyenv shim can be on PATH for a version that is not selected, and Debian can leave out venv.
USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))

# Stamps, not the files of the venv: an install that was interrupted leaves no stamp. The first bears the name of the
# interpreter, so that asking for another one makes the venv again.
RUNTIME := $(VENV)/.runtime$(subst /,-,$(PYTHON))
TOOLS := $(VENV)/.tools$(subst /,-,$(PYTHON))
PEERS := $(VENV)/.peers$(subst /,-,$(PYTHON))
FASTIFY := bench/peers/fastify/node_modules/.package-lock.json

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test faults handover bench bench-full lint format lock clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

demo: $(RUNTIME) ## start the demo upstreams and the gateway, and say what to try
	@exec $(BIN)/python -m demo

test: $(TOOLS) ## run the tests; PYTEST_ARGS="-n 0 --no-cov -k breaker" runs some of them, in one process
	PYTHONDEVMODE=1 $(BIN)/python -m pytest --cov $(PYTEST_ARGS)

faults: $(TOOLS) ## make upstreams fail in every way there is, and print what came of it, row by row
	@$(BIN)/python -m tests.faults

handover: $(TOOLS) ## have other tools read the log, as far as this machine has them
	@$(BIN)/python -m tests.handover

bench: $(PEERS) $(FASTIFY) ## compare the gateway with its peers, on this machine: five minutes
	@$(BIN)/python bench/compare.py

bench-full: $(PEERS) $(FASTIFY) ## the same at every size, width and load: half an hour
	@$(BIN)/python bench/compare.py --full

lint: $(TOOLS) ## check style, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy $(SOURCES)
	$(BIN)/lint-imports --no-logo

format: $(TOOLS) ## fix what ruff can fix, and lay the code out
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

lock: $(BIN)/uv ## pin the dependencies again; LOCK_ARGS=--upgrade takes newer ones
	$(COMPILE) --all-extras --output-file requirements.txt pyproject.toml
	$(COMPILE) --output-file tests/requirements.txt --constraint requirements.txt --group test
	$(COMPILE) --output-file bench/requirements.txt --constraint requirements.txt --group bench

clean: ## remove the venv and everything else that these targets made
	rm -rf $(VENV) .coverage .coverage.* .import_linter_cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -rf bench/peers/fastify/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One lock for every platform and Python that pyproject.toml admits, with nothing in it of the machine it was made on.
# Extras are named in it: an older pip takes the newest release for `coverage[toml]`, whatever `coverage` is pinned to,
# and that one has no hash here.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-strip-extras \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(LOCK_ARGS)

# Always from nothing, so that the venv holds what the locks say and no more.
$(RUNTIME): requirements.txt
	@for python in $(PYTHONS); do \
		if $$python -c '$(USABLE)' 2>/dev/null; then \
			echo "Making $(VENV) with $$python and installing into it: a minute, once"; \
			exec $$python -m venv --clear $(VENV); \
		fi; \
	done; \
	echo "No Python of 3.11 or newer, with venv and ensurepip, among: $(PYTHONS)." >&2; \
	echo "Install one (on Debian: python3 and python3-venv), or name yours: make PYTHON=/path/to/python3" >&2; \
	exit 1
	@$(PIP) install --quiet --quiet --require-hashes --requirement requirements.txt
	@touch $@

$(TOOLS): tests/requirements.txt $(RUNTIME)
	@echo "Installing the test tools into $(VENV)"
	@$(PIP) install --quiet --quiet --require-hashes --requirement tests/requirements.txt
	@touch $@

$(PEERS): bench/requirements.txt $(RUNTIME)
	@echo "Installing the peers written in Python into $(VENV)"
	@$(PIP) install --quiet --quiet --require-hashes --requirement bench/requirements.txt
	@touch $@

$(FASTIFY): bench/peers/fastify/package-lock.json | $(PEERS)
	@$(BIN)/python bench/compare.py --check
	@echo "Installing the peer written for Node.js"
	@npm ci --prefix $(dir $<) --no-audit --no-fund --loglevel=error
	@touch $@

$(BIN)/uv: | $(RUNTIME)
	@$(PIP) install --quiet --quiet uv
