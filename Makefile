# Everything runs in .venv, which the first target makes. Needs Python >= 3.11 and the registry.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo

.PHONY: help setup demo test test-slow coverage mutations lint types package docs clean

help:
	@echo 'make demo   trains and scores GCoNet+ on a synthetic set, with and without its group modules'
	@echo 'make test   lint, types and tests'
	@echo 'make docs   the documentation, in site/'

setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

# Two runs that differ in the group modules alone, scored on classes that neither has seen. Steps
# this small keep one core busy, so the runs go side by side, with a thread each (NPROC is XLA's);
# the second writes to a log. A shell's background ignores Ctrl-C, so whatever ends the one in front
# ends the other too.
demo: setup
	$(BIN)/python data/synthetic.py $(DEMO)/data
	export NPROC=1; \
	$(BIN)/python train.py --config=configs/synthetic.py:no_group --workdir=$(DEMO)/no_group \
	    --config.data.root=$(DEMO)/data > $(DEMO)/no_group.log 2>&1 & other=$$!; \
	trap 'kill $$other 2>/dev/null' EXIT; trap 'exit 130' INT; trap 'exit 143' TERM; \
	$(BIN)/python train.py --config=configs/synthetic.py --workdir=$(DEMO)/gconet \
	    --config.data.root=$(DEMO)/data && wait $$other
	@echo 'Without the group modules:'
	$(BIN)/python evaluate.py --workdir=$(DEMO)/no_group
	@echo 'With the group modules:'
	$(BIN)/python evaluate.py --workdir=$(DEMO)/gconet

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/pyright

test: lint types
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: setup
	$(BIN)/python -m pytest -m slow

# Lines and branches of gconet_jax that the tests run; fails below 90 %.
coverage: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term-missing

# Wrong changes to a copy of the source, which tests must notice.
mutations: setup
	$(BIN)/python tests/mutations.py

# Builds sdist and wheel into dist/, and uses the wheel in an environment of its own.
package: setup
	.ci/package

# Broken links and anchors are errors.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo 'site/index.html'

# Of runs/ only the demo's: the others took somebody's hours.
clean:
	rm -rf $(VENV) dist site $(DEMO)
