# `make demo` and `make test` work on a fresh machine with Python 3.11, git and make.
PYTHON ?= python3.11
BIN := .venv/bin
STORE ?= sqlite:///naslite.db
# Most tests wait for processes that they have started; a file's tests stay together.
JOBS ?= -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help demo test quick lint docs clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

demo: .venv/installed  ## search the digits demo (or continue it) and print its front
	@if $(BIN)/naslite ls --store $(STORE) --format csv | grep -q '^digits,'; \
	then $(BIN)/naslite resume digits --store $(STORE); \
	else $(BIN)/naslite run configs/digits.yaml --store $(STORE); fi

test: lint  ## lint, types, layer contract and every test
	$(BIN)/pytest $(JOBS)

quick: .venv/dev  ## the tests that are not marked slow
	$(BIN)/pytest $(JOBS) -m "not slow"

lint: .venv/dev  ## format, lint, types, layer contract
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/dev  ## write the generated pages of docs/ again
	$(BIN)/python docs/generate.py

clean:  ## remove the environment and what tools left
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

.venv/dev: .venv/installed
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@
