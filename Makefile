# Common tasks. `make` alone lists them; CI calls the same ones.

.DEFAULT_GOAL := help
PYTHON := .venv/bin/python -P
# Tests wait more than they compute: three at a time keep two cores busy.
PYTEST := $(PYTHON) -m pytest -n 3 --dist loadgroup
# For example: make test-db PG=15, make test ARGS="--require-system".
PG ?= 18
ARGS ?=
BENCHES ?= enqueue http_post drain latency end_to_end pull limits follow_ups fairness backlog lanes held_snapshot retention recovery idle
UV_COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-header --no-emit-index-url --no-emit-find-links --extra embedded --group build

.PHONY: help setup fmt lint type imports check test test-db test-all test-bench models migrate schema run-api run-worker run-scheduler bench bench-big lock dist clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: ## Make or update .venv with everything for development
	@bin/test --version

fmt: setup ## Format the code, and mend what the linter can
	$(PYTHON) -m ruff check --fix
	$(PYTHON) -m ruff format

lint: setup ## Check style and formatting
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check

type: setup ## Check types
	$(PYTHON) -m mypy

imports: setup ## Check the layout and who imports whom
	$(PYTEST) tests/unit/test_layout.py $(ARGS)

check: lint type test ## All that needs no database: style, types, imports, unit tests

test: setup ## Run the unit tests
	$(PYTEST) tests/unit $(ARGS)

test-db: setup ## Run what depends on the version of PostgreSQL on $(PG)
	$(PYTEST) --pg $(PG) -m "not one_server" tests/sql tests/integration $(ARGS)

test-all: setup ## Run all tests but those that measure on PostgreSQL $(PG)
	$(PYTEST) --pg $(PG) -m "not bench" $(ARGS)

test-bench: setup ## Run the tests that measure, one at a time
	$(PYTHON) -m pytest -m bench $(ARGS)

models: setup ## Search the models of the protocol (needs spin and gcc)
	$(PYTEST) tests/models --require-system $(ARGS)

migrate: setup ## Apply all migrations to HOWDAH_DATABASE_URL
	$(PYTHON) -m howdah migrate

schema: setup ## Write sql/schema.sql anew from the migrations
	$(PYTHON) tests/dump_schema.py

run-api: setup ## Run one API process on HOWDAH_DATABASE_URL
	$(PYTHON) -m howdah api

run-worker: setup ## Run one worker process on HOWDAH_DATABASE_URL
	$(PYTHON) -m howdah worker

run-scheduler: setup ## Run one scheduler process on HOWDAH_DATABASE_URL
	$(PYTHON) -m howdah scheduler

bench: setup ## Measure everything, beside bare SQL (ten minutes)
	for name in $(BENCHES); do echo "== $$name"; .venv/bin/python bench/$$name.py || exit; done

bench-big: setup ## Measure with ten million rows (half an hour, 20 GB)
	.venv/bin/python bench/backlog.py --n 1000000 --sizes 100000,10000000
	.venv/bin/python bench/retention.py --n 10000000 --seconds 60

lock: ## Pin the newest allowed requirements (needs uv)
	$(UV_COMPILE) --upgrade pyproject.toml -o requirements.lock
	$(UV_COMPILE) --upgrade --group dev -c requirements.lock pyproject.toml -o requirements-dev.lock

dist: setup ## Build sdist and wheel into dist/
	$(PYTHON) -m hatchling build

clean: ## Remove .venv, caches and build output; never data
	rm -rf .venv .venv.* build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
