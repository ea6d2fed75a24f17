PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# The version of .venv's Python, if .venv is intact: it was not moved, it has pip, and nothing is
# half installed (pip writes INSTALLER last).
WHOLE := import importlib.metadata, sys; \
	assert sys.version_info >= (3, 11); \
	assert sys.executable in open(sys.prefix + "/bin/pip").read(); \
	assert all(found.read_text("INSTALLER") for found in importlib.metadata.distributions()); \
	print(sys.version)
FOUND := $(shell $(BIN)/python -I -c '$(WHOLE)' 2>/dev/null)

# The version of the Python that PYTHON= names; without PYTHON=, any will do.
ASKED := $(if $(filter file,$(origin PYTHON)),$(FOUND),$(shell \
	$(PYTHON) -c 'import sys; print(sys.version)' 2>/dev/null))

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo serve test lint bench matrix mutants docs clean anew

help: ## list these commands
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST) | expand -t 16
	@echo 'With PYTHON=python3.12 a command uses that Python (3.11 or later), not python3.'

demo: $(VENV)/demo ## run one acquisition with an exam manager of its own
	@$(BIN)/python examples/acquisition.py

serve: $(VENV)/demo ## run an exam manager to develop with (PORT=8000 KEEP=1)
	@$(BIN)/python examples/exam_manager.py $(if $(PORT),--port $(PORT)) $(if $(KEEP),--keep)

test: $(VENV)/test ## run the tests
	@$(BIN)/pytest -n 2

lint: $(VENV)/lint ## check the style and the types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/stubtest exam_requests --mypy-config-file setup.cfg

bench: $(VENV)/bench ## time the calls against other clients
	@$(BIN)/python benchmarks/bench.py

matrix: $(VENV)/matrix ## test on each Python, with the oldest packages and the newest
	@$(BIN)/nox

mutants: $(VENV)/matrix ## change the module in hundreds of ways; list what is not noticed
	@$(BIN)/nox --session mutants --error-on-missing-interpreters

docs: $(VENV)/docs ## build the pages
	@$(BIN)/sphinx-build -q -W --keep-going --nitpicky docs docs/_build
	@echo docs/_build/index.html

clean: ## remove everything that these commands made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -rf .nox docs/_build docs/autoapi mutants
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# This stamp says that the packages of an extra (setup.cfg) are installed.
$(VENV)/%: setup.cfg setup.py $(VENV)/pyvenv.cfg
	@echo "Installing the packages of '$*' (setup.cfg) into $(VENV) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

$(VENV)/pyvenv.cfg: $(if $(findstring $(FOUND),$(ASKED)),,anew)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo '$(PYTHON) is not Python 3.11 or later.' \
			'Name one that is: make $(MAKECMDGOALS) PYTHON=python3.12'; exit 1; } >&2
	@echo "Making $(VENV) with $(PYTHON) ..."
	@$(PYTHON) -m venv --clear $(VENV)
