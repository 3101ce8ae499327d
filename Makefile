# `make run` and `make test` build their own environment; nothing else needs to be installed by hand.
PYTHON ?= python3
BIN := .venv/bin
export PREFECT_SERVER_ANALYTICS_ENABLED ?= false
export DO_NOT_TRACK ?= 1

.PHONY: help run test check bench serve clean

help:
	@echo "make run    replay a real 17-site trial, from raw returns to a frozen dataset (about 3 minutes)"
	@echo "make test   every test: unit, property, real PostgreSQL and S3 servers, a real Prefect server"
	@echo "make check  lint and types"
	@echo "make bench  benchmarks"
	@echo "make serve  Prefect's page with the study's flows, on this machine"

run: .venv/run
	@$(BIN)/summative rehearse cdisc_pilot $(ARGS)

serve: .venv/run
	@$(BIN)/summative serve $(ARGS)

test: .venv/test
	@$(BIN)/python -m tests.provide
	@$(BIN)/pytest -n 2 --dist loadfile $(ARGS)

check: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/test
	@failed=0; for file in benchmarks/[a-z]*.py; do $(BIN)/python -m benchmarks.$$(basename $$file .py) || failed=1; done; exit $$failed

.venv/run: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Summative needs Python 3.11 or later: set PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing the pinned packages into .venv ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[rehearsal]'
	@touch $@

.venv/test: .venv/run
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[rehearsal,test]'
	@touch $@

clean:
	rm -rf .venv out build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
