# Everything runs in $(VENV), which is made on first use and updated when pyproject.toml changes.
# PYTHON= picks the interpreter, VENV= the directory, PYTEST_ARGS= what else pytest is told,
# ROW= the rows of the benchmark.

PYTHON ?= python3
VENV ?= .venv$(if $(filter bench,$(MAKECMDGOALS)),-bench)
BIN := $(VENV)/bin

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-all pytest lint format docs bench clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.examples ## Train a network on handwritten digits and plot how it went
	$(BIN)/python examples/digits.py

test: lint pytest ## Run the linters, the type checkers, the tests and the doctests

test-all: ## The same and the slow tests, under the oldest and the newest Python found
	@for python in $$( (.ci/newest-python 3.11 3.12 3.13 3.14 3.15; .ci/newest-python) | uniq); do \
	    XLA_FLAGS= $(MAKE) --no-print-directory test CACHED= PYTEST_ARGS='-m ""' PYTHON=$$python \
	        VENV=.venv-$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])') || exit; \
	done

# Most of the time of the tests goes into compiling the same programs again, which JAX remembers
# here. Its key is the program, the options, and the versions: no other program is ever found.
# `make test-all` compiles everything anew.
CACHED := JAX_COMPILATION_CACHE_DIR='$(CURDIR)/.jax_cache' \
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1

pytest: $(VENV)/.test ## Run the tests and the doctests alone, one process per core
	$(CACHED) $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: $(VENV)/.test ## Run the linters and the type checkers alone
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.test ## Format the code and repair what the linter can
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

docs: $(VENV)/.docs ## Build the documentation into site/
	rm -rf docs/api/generated
	$(BIN)/sphinx-build -q -W --keep-going -j auto -d build/doctrees docs site

bench: $(VENV)/.bench ## Compare the speed with that of other libraries, in .venv-bench
	$(BIN)/python -m benchmarks $(ROW)

clean: ## Remove everything that make has made, the environments included
	rm -rf .venv .venv-* .mypy_cache .pytest_cache .ruff_cache .jax_cache .hypothesis build dist site digits.png docs/api/generated
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment. A PYTHON= that was asked for names the interpreter by its version, so that an
# environment made by another one is made anew; otherwise any that is there will do.
ifneq ($(origin PYTHON),file)
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
INTERPRETER := $(BIN)/python$(or $(filter 3.%,$(VERSION)),-missing)
else
INTERPRETER := $(BIN)/python
endif
PROBLEM = $(shell .ci/check-python '$(PYTHON)' '$(or $(MAKECMDGOALS),test)')

$(INTERPRETER):
	$(if $(PROBLEM),$(error $(PROBLEM)))
	$(PYTHON) -m venv $(VENV) $(if $(wildcard $(VENV)/pyvenv.cfg),--clear)

# $(VENV)/.test marks that the extra `test` is installed.
$(VENV)/.%: pyproject.toml $(INTERPRETER)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@
