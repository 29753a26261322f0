# Everything a newcomer needs: `make demo` and `make test`. `make help` lists the rest.
#
#   PYTHON=/path/to/python   use that interpreter's environment instead of making .venv
#   DATA=<folder>            demo on a folder of train.txt, valid.txt and test.txt
#   ARGS='...'               passed on to the demo or to pytest
#   SCATTER=0                setup and test leave the optional torch-scatter out

VENV ?= .venv
export VENV SCATTER TORCH

ifdef PYTHON
export PYTHON
PY := $(PYTHON)
else
PY := $(VENV)/bin/python
endif

# Compiled kernels are kept between runs, in the tree and out of version control.
export NUMBA_CACHE_DIR ?= $(CURDIR)/.cache/numba

.DEFAULT_GOAL := help
.PHONY: help setup demo test robustness test-gpu-suite lint types docs package lower-bounds clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: ## Make the environment with everything for development
	@tools/setup.sh dev scatter

demo: ## Train DistMult with and without EMU, print a table and draw a curve
	@tools/setup.sh pykeen,plots
	@$(PY) -m examples.demo $(if $(DATA),--data "$(DATA)") $(ARGS)

test: ## Run the tests, on all cores
	@tools/setup.sh dev scatter
	@$(PY) -m pytest -n auto --dist loadgroup $(ARGS)

robustness: ## Try all cases of the robustness tests, with a new seed, and record the result (up to 40 minutes)
	@tools/setup.sh dev scatter
	@$(PY) -m benchmarks.robustness $(ARGS)

test-gpu-suite: ## Run every piece of the GPU suite, tiny, on the CPU
	@tools/setup.sh dev scatter
	@$(PY) -m pytest -m gpu_suite $(ARGS) tests/benchmarks

lint: ## Check style with ruff
	@tools/setup.sh dev
	@$(PY) -m ruff check .

types: ## Check types with mypy
	@tools/setup.sh dev
	@$(PY) -m mypy

docs: ## Build the documentation into build/docs; warnings are errors
	@tools/setup.sh dev
	@$(PY) -m sphinx -W --keep-going -q -c docs -d .cache/docs . build/docs
	@echo 'documentation: build/docs/index.html'

package: ## Build wheel and sdist, install the wheel elsewhere and run the quickstart there
	@tools/setup.sh dev
	@tools/package.sh $(PY)

lower-bounds: ## Run a quick part of the tests with the oldest versions that setup.cfg allows
	@tools/lower_bounds.sh $(ARGS)

clean: ## Remove caches and build products, keep the environment and results
	@rm -rf build dist docs/api *.egg-info .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
