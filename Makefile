# Every target makes its own .venv, when it is missing or out of date, and so works as the
# first command on a fresh clone. PYTHON chooses the interpreter: make test PYTHON=python3.13

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/lgkv.stamp
SOURCES := pyproject.toml setup.py $(wildcard ext/*.p[yx]*)

# A virtual environment works for one interpreter and at one place only.
ORIGIN := $(PYTHON) $(CURDIR)
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(ORIGIN))
.PHONY: $(STAMP)
endif

.PHONY: help demo test check bench torture fuzz clean
.DEFAULT_GOAL := help

help:
	@echo "make demo     a LangGraph agent that keeps its memory in one file across restarts"
	@echo "make test     all tests"
	@echo "make check    format, lint, types, layers, stubs"
	@echo "make bench    lgkv beside the other backends; writes JSON"
	@echo "make torture  crashes and damage, for as long as it takes"
	@echo "make fuzz     hostile bytes and damaged records, many more than the tests use; again on"
	@echo "              extensions built with AddressSanitizer and UBSan (Linux, gcc)"
	@echo "make clean    remove .venv and everything that was built"

demo: $(STAMP)
	@$(BIN)/python examples/agent.py

test: $(STAMP)
	$(BIN)/python -m pytest

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	$(BIN)/python -m mypy.stubtest --mypy-config-file=pyproject.toml lgkv._heads lgkv._items \
		lgkv._msgpack lgkv._native lgkv._plain lgkv._shadow lgkv._vectors
	$(BIN)/lint-imports
	PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint ext

bench: $(STAMP)
	$(BIN)/python -m pytest -m slow --timeout=0
	$(BIN)/python -m benchmarks

torture: $(STAMP)
	$(BIN)/python -m tests.crash.torture

fuzz: $(STAMP)
	$(BIN)/python -m pytest tests/unit/test_native.py tests/unit/test_msgpack.py \
		tests/unit/test_heads.py tests/unit/test_shadow.py tests/unit/test_recycling.py \
		tests/unit/test_models.py tests/fuzz --hypothesis-profile=long --timeout=0
	$(BIN)/python -m tests.fuzz.sanitized --hypothesis-profile=sanitized --timeout=0

$(STAMP): $(SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "lgkv needs Python 3.10 or newer; $(PYTHON) is: `$(PYTHON) --version 2>&1`." >&2; \
		echo "Name another one: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }
	@test "`cat $@ 2>/dev/null`" = "$(ORIGIN)" || $(PYTHON) -m venv --clear .venv
	@echo "Installing lgkv and its tools into .venv (the first time takes a minute) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@echo "$(ORIGIN)" > $@

clean:
	rm -rf .venv build dist *.egg-info lgkv/_*.so lgkv/_*.pyd
	rm -rf .benchmarks .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
