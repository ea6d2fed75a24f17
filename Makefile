PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo serve test lint bench matrix mutants docs clean

help: ## list these commands
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(VENV)/demo ## one whole acquisition against an exam manager of its own
	@$(BIN)/python examples/acquisition.py

serve: $(VENV)/demo ## keep an exam manager running to develop with (PORT=8000 KEEP=1)
	@$(BIN)/python examples/exam_manager.py $(if $(PORT),--port $(PORT)) $(if $(KEEP),--keep)

test: $(VENV)/test ## run the tests
	@$(BIN)/pytest -n 2

lint: $(VENV)/lint ## check the style and the types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/stubtest exam_requests --mypy-config-file setup.cfg

bench: $(VENV)/bench ## time the calls beside those of other clients
	@$(BIN)/python benchmarks/bench.py

matrix: $(VENV)/matrix ## run the tests on each Python, with the oldest and the newest dependencies
	@$(BIN)/nox

mutants: $(VENV)/matrix ## change the module in hundreds of ways, and see that a test fails for each
	@$(BIN)/nox --session mutants

docs: $(VENV)/docs ## make the pages
	@$(BIN)/sphinx-build -q -W --keep-going --nitpicky docs docs/_build
	@echo docs/_build/index.html

clean: ## remove everything that these commands made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -rf .nox docs/_build docs/autoapi mutants
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp of an extra: what setup.cfg declares for it is installed.
$(VENV)/%: setup.cfg setup.py
	@echo "Installing the packages of '$*' (setup.cfg) into $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@
