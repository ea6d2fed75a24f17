BIN := .venv/bin

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo serve test lint bench matrix mutants docs clean always

help: ## list these commands
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST) | expand -t 16
	@echo 'With PYTHON=python3.12 a command uses that Python (3.11 or later), not python3.'

demo: .venv/demo ## run one acquisition with an exam manager of its own
	@$(BIN)/python examples/acquisition.py

serve: .venv/demo ## run an exam manager to develop with (PORT=8000 KEEP=1 TASKS=200)
	@$(BIN)/python examples/exam_manager.py $(if $(PORT),--port $(PORT)) $(if $(KEEP),--keep) $(if $(TASKS),--tasks $(TASKS))

test: .venv/test ## run the tests
	@$(BIN)/pytest -n 2 --dist loadfile

lint: .venv/lint ## check the style and the types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/stubtest exam_requests --mypy-config-file setup.cfg

bench: .venv/bench ## time the calls against other clients
	@$(BIN)/python benchmarks/bench.py

matrix: .venv/matrix ## test on each Python, with the oldest packages and the newest
	@$(BIN)/nox

mutants: .venv/matrix ## change the module in hundreds of ways; list what is not noticed
	@$(BIN)/nox --session mutants --error-on-missing-interpreters

docs: .venv/docs ## build the pages
	@$(BIN)/sphinx-build -q -W --keep-going --nitpicky docs docs/_build
	@echo docs/_build/index.html

clean: ## remove everything that these commands made
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -rf .nox docs/_build docs/autoapi mutants
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# .venv is made anew unless it still is what .venv/made says: of this Python, here, and with pip.
PYTHON ?= $(or $(realpath $(BIN)/python),python3)
STATE = { $(PYTHON) -VV; $(BIN)/python -Ic 'import pip; print(pip)'; } 2>/dev/null
.venv/made: always
	@$(STATE) | cmp -s - $@ && exit; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo '$(PYTHON) is not Python 3.11 or later.' \
			'Name one that is: make $(MAKECMDGOALS) PYTHON=python3.12'; exit 1; } >&2; \
	echo 'Making .venv with $(PYTHON) ...'; $(PYTHON) -m venv --clear .venv && $(STATE) > $@

# The packages of an extra of setup.cfg. What pip was interrupted at has no INSTALLER: it must go.
.venv/%: setup.cfg .venv/made
	@echo "Installing the packages of '$*' (setup.cfg) into .venv. It may take a minute or two ..."
	@for info in .venv/lib/*/*/*.dist-info; do test -e $$info/INSTALLER || rm -rf $$info; done
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]' && touch $@
