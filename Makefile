# Two commands need nothing but Python 3.11+, PyPI and Maven Central:  make demo   make test
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ARGS   ?=

.PHONY: demo test lint bench clean

# One for each extra of pyproject.toml that a target needs. Compiled is what is imported, when it is: of torch, little.
$(VENV)/.%: pyproject.toml worker/_core/Cargo.toml $(wildcard worker/_core/src/*.rs)
	@$(PYTHON) -c 'import sys; sys.exit(f"zmu needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}. Name another: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (the first time takes a few minutes: torch is large) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[$*]'
	@touch $@

demo: $(VENV)/.demo
	@$(BIN)/python -m deploy.demo $(ARGS)

test: lint
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile $(ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.test
	$(BIN)/python -m tests.benchmarks $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
