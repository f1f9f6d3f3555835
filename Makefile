# Two commands matter: `make demo` and `make test`. Each sets everything up by itself.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Two test processes; a file stays in one of them, so that what it compiled serves all its tests.
WORKERS ?= --numprocesses=2 --dist=loadfile

.PHONY: help setup demo test test-slow test-all lint format docs mutation coverage address clean
help:
	@echo "make demo      set up, simulate people, learn from some without labels, read the others"
	@echo "make test      set up, run the fast tests (minutes)"
	@echo "make test-all  the fast tests, then the slow ones"
	@echo "make lint      the linter, and who may import whom; make format mends what it can"
	@echo "make mutation  an hour of small faults, put in one at a time: which does no fast test notice?"
	@echo "make coverage  lines and branches that no fast test runs"
	@echo "make docs      the documentation, into build/docs; a warning is an error"

# One stamp for what users need, one for what developers need: nothing is installed twice.
$(VENV)/.runtime: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[train]'
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

setup: $(VENV)/.dev

# Simulated people who move their heads, in UBFC-rPPG's layout; twelve to learn from, six to test on.
DEMO := workdir/demo
demo: $(VENV)/.runtime
	$(BIN)/python -m sspd_jax simulate $(DEMO)/recordings --preset=default --people=18 --seconds=20 --seed=0
	$(BIN)/python -m sspd_jax.main --config=configs/demo.py --workdir=$(DEMO)/run
	$(BIN)/python -m sspd_jax predict $(DEMO)/recordings/subject13/vid.avi --checkpoint=$(DEMO)/run/network/target

test: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not slow" $(WORKERS)

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow --durations=30 $(WORKERS)

test-all: test test-slow

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.dev
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --fresh-env -q -b html docs build/docs
	@echo "build/docs/index.html"

mutation: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[mutation]'
	$(BIN)/python benchmarks/mutation/mutate.py

# Lines and branches that no fast test runs, module by module. Twice as long as `make test`.
coverage: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[mutation]'
	rm -rf build/coverage
	$(BIN)/coverage run -m pytest -m "not slow" $(WORKERS)
	$(BIN)/coverage combine --quiet
	{ cat benchmarks/mutation/coverage_notes.md; echo; \
	  $(BIN)/coverage report --format=markdown --show-missing --skip-covered; } > benchmarks/mutation/coverage.md

# The repository's address stands in setup.cfg; what links to it follows: make address URL=https://github.com/you/name
ADDRESS := $(shell sed -n 's/^url = //p' setup.cfg)
LINKED := setup.cfg README.md notebooks/*.ipynb
address:
	@test -n "$(URL)" || { echo "say which: make address URL=https://github.com/you/sspd_jax"; exit 1; }
	sed -i.before -e 's|$(ADDRESS)|$(URL)|g' \
	  -e 's|$(ADDRESS:https://github.com/%=github/%)|$(URL:https://github.com/%=github/%)|g' $(LINKED)
	rm -f setup.cfg.before README.md.before notebooks/*.before

clean:
	rm -rf $(VENV) build dist *.egg-info workdir
