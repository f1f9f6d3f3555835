# Two commands matter: `make demo` and `make test`. Each sets everything up by itself.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help setup demo test test-slow test-all lint format clean
help:
	@echo "make demo      set up, make a face video with a known pulse, read its heart rate"
	@echo "make test      set up, run the fast tests (minutes)"
	@echo "make test-all  the fast tests, then the slow ones"
	@echo "make lint      the linter; make format mends what it can"

# One stamp for what users need, one for what developers need: nothing is installed twice.
$(VENV)/.runtime: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

setup: $(VENV)/.dev

DEMO := workdir/demo
DEMO_BPM := 66
demo: $(VENV)/.runtime
	@mkdir -p $(DEMO)
	$(BIN)/python -m sspd_jax.video.sample $(DEMO)/face.mp4 --bpm $(DEMO_BPM)
	@echo "A face whose heart beats $(DEMO_BPM) times a minute, read by each method that needs no weights:"
	$(BIN)/python -m sspd_jax.predict $(DEMO)/face.mp4 --method=green
	$(BIN)/python -m sspd_jax.predict $(DEMO)/face.mp4 --method=chrom
	$(BIN)/python -m sspd_jax.predict $(DEMO)/face.mp4 --method=pos --json=$(DEMO)/pos.json

test: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

test-all: test test-slow

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info workdir
