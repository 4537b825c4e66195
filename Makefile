# Everything from a fresh clone with Python 3.11 to 3.13, git and make; the rest is set up in .venv.
#   make demo PYTHON=python3.12     chooses the interpreter

VENV := .venv
RUN := $(VENV)/bin/
STAMP := $(VENV)/.installed
# Names are tried by running them: version managers leave shims for versions that are not there.
SUITABLE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11 python; do \
	$$name -c '$(SUITABLE)' 2>/dev/null && echo $$name && break; done)

.PHONY: demo test test-all lint format bench clean
.DEFAULT_GOAL := test

$(STAMP): pyproject.toml constraints.txt
	@"$(or $(PYTHON),python3)" -c '$(SUITABLE)' 2>/dev/null || { \
		echo "strop needs Python 3.11, 3.12 or 3.13, and '$(or $(PYTHON),python3)' is $$("$(or $(PYTHON),python3)" --version 2>&1)."; \
		echo "Name one that is:"; echo "  make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	@rm -rf $(VENV)
	@if uv --version >/dev/null 2>&1; then \
		uv venv --quiet --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV) && \
		uv pip install --quiet --python $(RUN)python -c constraints.txt -e '.[dev]'; \
	else \
		$(PYTHON) -m venv $(VENV) && \
		$(RUN)python -m pip install --quiet -c constraints.txt -e '.[dev]'; \
	fi
	@touch $@

demo: $(STAMP)  ## train a small network on real handwriting and optimize it
	$(RUN)strop demo

test: $(STAMP)  ## the tests that need neither long training nor an accelerator, and the doctests
	$(RUN)python -m pytest -q --doctest-modules src
	$(RUN)python -m pytest -q -n 2 --dist loadfile

test-all: $(STAMP)  ## the slow ones too
	$(RUN)python -m pytest -q --doctest-modules src
	$(RUN)python -m pytest -q -m "not gpu"

lint: $(STAMP)
	$(RUN)ruff check .
	$(RUN)ruff format --check .
	$(RUN)codespell
	$(RUN)mypy
	$(RUN)lint-imports

format: $(STAMP)
	$(RUN)ruff check --fix .
	$(RUN)ruff format .

bench: $(STAMP)  ## hours; what was measured stays, and it goes on where it stopped
	$(RUN)python -m benchmarks.compression
	$(RUN)python -m benchmarks

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist strop-demo
