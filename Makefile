VENV := .venv
PYTHON := $(VENV)/bin/python
WORKSPACE ?= workspace
PORT ?= 8501
# ninja and the deepspeed launcher live in the environment's own folder.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: run test check bench setup

run: setup
	$(PYTHON) -m backend -w $(WORKSPACE) serve --port $(PORT)

test: setup $(VENV)/.tests-installed
	./tests/install_browser.sh
	$(MAKE) check
	$(PYTHON) -m pytest

check: setup $(VENV)/.tests-installed
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) -m pytest tests/house

bench: setup
	$(PYTHON) -m tests.benchmarks

setup: $(VENV)/.installed

$(VENV)/.installed: requirements.txt
	test -x $(PYTHON) || python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.tests-installed: tests/requirements.txt $(VENV)/.installed
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	touch $@
