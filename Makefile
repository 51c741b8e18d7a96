# `make demo` and `make test` need python3 (3.11 or newer), make, git and a package index; everything else they install into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST := $(BIN)/python -m pytest
REPORT = $(if $(CI),--durations=25,)

.PHONY: help demo test test-unit test-system acceptance lint types bench soak docs lock clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(READY)  ## pack, serve, hot-swap and roll back a real PyTorch model on this box
	@$(BIN)/modelrepo demo --torch

test: $(READY)  ## everything that needs no root, compiler or Debian package, with reduced counts in the acceptance suites
	$(PYTEST) tests/unit tests/contracts -m "not system" -n 2 --dist loadscope -q $(REPORT)
	$(PYTEST) tests/acceptance -m "not system" -n 2 --dist loadscope -q $(REPORT)
	@echo
	@echo "Left to 'make test-system' (root, a C compiler, memory cgroups):"
	@$(PYTEST) tests -m system --collect-only -q 2>/dev/null | grep '::' | sed 's/^/  /' || true
	@echo "Left to 'make acceptance': the same acceptance suites at their full counts."

test-unit: $(READY)  ## the quick part of 'test'
	$(PYTEST) tests/unit -m "not system" -n 2 --dist loadscope -q

test-system: $(READY)  ## what needs root, a C compiler or a Debian package; a missing one is a failure
	$(PYTEST) tests -m system -q $(REPORT)

acceptance: $(READY)  ## the acceptance suites at their full counts (tens of minutes)
	MODELREPO_ACCEPTANCE=full $(PYTEST) tests/acceptance -m "not system" -n 2 --dist loadscope -q --durations=25 --timeout 3600
	MODELREPO_ACCEPTANCE=full $(PYTEST) tests -m system -q --timeout 3600

lint: $(READY)  ## style, formatting and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ruff check --target-version py39 --select E9,F,UP036,FA102 runtime/modelrepo_runtime/child
	$(BIN)/lint-imports

types: $(READY)  ## mypy, strict, tests included
	$(BIN)/mypy

bench: $(READY)  ## every benchmark (or BENCH="transfer.py env.py"), and docs/benchmarks.md from what they print
	@$(BIN)/python bench/page.py $(BENCH)

MINUTES ?= 60
soak: $(READY)  ## an hour of swaps in every mode with a torch child (or MINUTES=5): what grows; prints JSON
	@$(BIN)/python tests/soak/swaps.py --minutes $(MINUTES)

docs: $(READY)  ## regenerate the command reference
	$(BIN)/python -m modelrepo_cli.reference

lock: $(READY)  ## pin the development tools anew from requirements-dev.in
	$(BIN)/uv pip compile --generate-hashes --no-emit-index-url --no-header --python-version 3.11 --universal --upgrade \
	  requirements-dev.in -o requirements-dev.txt

clean:  ## remove .venv and what the tools have cached here
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV): $(READY)

$(READY): requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "modelrepo needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "cannot make $(VENV): this Python has no venv module (Debian and Ubuntu: apt install python3-venv)" >&2; exit 2; }
	@echo "installing into $(VENV) ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
