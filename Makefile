# Two commands do everything on a fresh machine: `make demo` and `make test`.
# They need Python 3.11 or newer and a package registry, nothing else.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
# A process on every core, each with one thread (tests/conftest.py).
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile

.PHONY: demo test test-all test-kernels lint bench docs clean help

help:  ## show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

demo: $(VENV)/.core  ## decode a simulated cortex, end to end, and write runs/demo/report.html
	$(BIN)/phosphene demo --out runs/demo

test: $(VENV)/.dev  ## lint, layers and the quick tests (under 12 minutes on two cores)
	$(MAKE) --no-print-directory lint
	$(PYTEST)

test-all: $(VENV)/.dev  ## the slow tests too
	$(MAKE) --no-print-directory lint
	$(PYTEST) -m ''

# The kernels numpy and scipy take on processors without AVX2, with it, and with AVX-512; torch has its own. A processor can
# only run kernels whose instructions it has.
KERNELS ?= Nehalem:sse4_2 Haswell:avx2 SkylakeX:avx512f

test-kernels: $(VENV)/.dev  ## the numeric tests with the matrix kernels of older and newer processors
	@for pair in $(KERNELS); do \
	  kernel=$${pair%%:*}; needs=$${pair##*:}; \
	  if ! grep -qwm1 $$needs /proc/cpuinfo 2>/dev/null; then \
	    echo "kernel $$kernel skipped: this processor does not have $$needs"; continue; \
	  fi; \
	  echo "kernel $$kernel"; \
	  OPENBLAS_CORETYPE=$$kernel $(PYTEST) -q -m 'numeric and not slow' tests/align tests/evaluate || exit 1; \
	done

lint: $(VENV)/.dev  ## style, spelling, and the import layers of the architecture
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/codespell src tests benchmarks docs README.md CHANGELOG.md CONTRIBUTING.md
	$(BIN)/lint-imports

bench: $(VENV)/.dev  ## measure against peers, side by side in one run
	$(BIN)/python -m benchmarks

docs: $(VENV)/.docs  ## the site, in build/site; links that lead nowhere and pages that are missing are errors
	rm -rf build/site
	$(BIN)/sphinx-build --quiet --fail-on-warning --fresh-env --doctree-dir build/doctrees docs build/site
	@echo 'site: build/site/index.html'

clean:  ## remove the environment and the demo's run
	rm -rf $(VENV) runs

$(VENV)/.pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "phosphene needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo 'installing into $(VENV): a few minutes, once'
	$(BIN)/python -m pip install --quiet --upgrade pip
	@touch $@

$(VENV)/.core: $(VENV)/.pip pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.docs: $(VENV)/.core
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@
