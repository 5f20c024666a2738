# Two commands do everything on a fresh machine: `make demo` and `make test`.
# They need Python 3.11 or newer and a package registry, nothing else.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
# A process on every core, each with one thread (tests/conftest.py).
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile
CHECKED := src tests benchmarks tools
LIMITS := class_names_twice=0 file_stems_twice=2 function_names_twice=20 private_imports=0 import_circles=0

.PHONY: demo test test-all test-kernels lint style layers strings docstrings types ratchet house bench docs clean help

help:  ## show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

demo: $(VENV)/.core  ## decode a simulated cortex, end to end, and write runs/demo/report.html
	$(BIN)/phosphene demo --out runs/demo

test: $(VENV)/.dev  ## lint, layers and the quick tests (under 8 minutes on two cores)
	$(MAKE) --no-print-directory -j2 lint
	$(PYTEST)

test-all: $(VENV)/.dev  ## the slow tests too
	$(MAKE) --no-print-directory -j2 lint
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
	  OPENBLAS_CORETYPE=$$kernel $(PYTEST) -q -m 'numeric and not slow' tests/align tests/metrics || exit 1; \
	done

# The longest first, so that with -j2 it runs beside all the others.
lint: types style layers ratchet strings docstrings  ## every gate: style, layers, names, docstrings, types

style: $(VENV)/.dev  ## format, lint and spelling
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/codespell $(CHECKED) docs README.md CHANGELOG.md CONTRIBUTING.md

layers: $(VENV)/.dev  ## imports point down the layers only
	$(BIN)/lint-imports

strings: $(VENV)/.dev  ## strings that name modules keep to the layers, and name what exists
	$(BIN)/python tools/strings.py

# GL08, PR01, PR02, PR03, RT01, RT03 and YD01 (what must be there) are asked of public names only, by tools/docstrings.py; SS02 and
# SS03 take a summary that begins with a name in lower case, or ends with a question mark, for a mistake.
docstrings: $(VENV)/.dev  ## docstrings as numpydoc has them: well formed everywhere, complete for public names
	$(BIN)/numpydoc lint --ignore GL08,PR01,PR02,PR03,RT01,RT03,SS02,SS03,YD01 $$(find src -name '*.py' | sort)
	$(BIN)/python tools/docstrings.py

types: $(VENV)/.dev  ## pyright, basic (one to two minutes and 3.5 GB)
	$(BIN)/pyright --project pyproject.toml --pythonpath $(BIN)/python

# Each figure may only fall. Lower a limit when the tree does better.
ratchet: $(VENV)/.dev  ## names used twice, circles and private imports: no more than there are
	$(BIN)/python tools/house.py $(addprefix --limit ,$(LIMITS))

house: $(VENV)/.dev  ## measure how the sources read, beside four other projects
	$(BIN)/python tools/house.py

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
