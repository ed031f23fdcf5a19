# Everything here works from a fresh clone. `make help` prints the targets with the first comment after each of them (##),
# and the lines that begin with #: below it.

.DEFAULT_GOAL := help
.NOTPARALLEL:
SHELL := /bin/sh
python := .venv/bin/python
WORKERS := 4
# Without compiled files each of the hundred processes that tests start would compile all that it imports.
pytest := env -u PYTHONDONTWRITEBYTECODE $(python) -m pytest -n $(WORKERS) --dist worksteal

.PHONY: help
help: ## print this
	@awk -F ':.*## ' '/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 } \
		/^#: / { printf "      %s\n", substr($$0, 4) }' Makefile
	@echo
	@echo 'The first call makes .venv from a hash-pinned lock, which takes up to a minute and needs the network once.'
	@echo 'PYTHON=/path/to/python3.13 names the interpreter. CONTRIBUTING.md says how to change the service.'

##@ Use it

.PHONY: run
run: ## start the service with a PostgreSQL and a Redis of its own and the sample course
#: Prints an address, tokens and curl commands. Ctrl-C stops all of it; the data stays.
#: Settings are variables: make run PORT=8001 WEB_CONCURRENCY=2
#: DATABASE_URL and REDIS_URL name servers that are there already.
	@.ci/set-up requirements-embedded.txt
	@exec $(python) -m server dev --with-parent

##@ Change it

.PHONY: test
test: ## run the tests, against real servers
#: In WORKERS=4 processes with servers of their own; WORKERS=0 runs them in one.
#: Some of them: make test ARGS="tests/ratelimit -k refund -x"
	@.ci/set-up requirements-dev.txt
	@exec $(pytest) -m "not long" $(ARGS)

.PHONY: test-long
test-long: ## run the property tests on many random examples, and the tests that take long
#: The same examples again: make test-long ARGS=--hypothesis-seed=7
	@.ci/set-up requirements-dev.txt
	@exec $(pytest) -m "hypothesis or long" --hypothesis-profile long -o timeout=900 $(ARGS)

.PHONY: check
check: ## lint, formatting, types, who may import whom, and the OpenAPI document
#: Before each commit, too, but for the document: pre-commit install
#: To repair: .venv/bin/python -m ruff check --fix; .venv/bin/python -m ruff format
	@.ci/set-up requirements-dev.txt
	@.ci/lint-api prepare &
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m mypy
	$(python) -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'
	.ci/lint-api

.PHONY: schema
schema: ## write sql/schema.sql, the whole schema on one page, from the migrations
#: After a new migration.
	@.ci/set-up requirements-dev.txt
	@$(python) -m server schema --from-migrations >sql/schema.sql.new && mv sql/schema.sql.new sql/schema.sql

.PHONY: lock
lock: ## resolve pyproject.toml again into the four locks, newest versions that fit
#: After a change of the dependencies. Needs the network.
	@.ci/lock

.PHONY: clean
clean: ## remove .venv, the caches and the data of make run
#: Refuses while make run is running here.
	@pid=$$(sed -n 's/.*"pid": \([0-9]*\).*/\1/p' .state/running.json 2>/dev/null); \
	if [ -n "$$pid" ] && kill -0 "$$pid" 2>/dev/null; then \
		echo "clean: make run is running here (process $$pid); stop it first" >&2; exit 1; fi
	rm -rf .venv .state .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

##@ Measure it

.PHONY: bench
bench: ## measure the service beside bare aiohttp, Fastify, FastAPI and Go: 15 minutes
#: Rewrites docs/performance.md. One part: .venv/bin/python -m bench --help.
	@.ci/set-up requirements-dev.txt
	@exec $(python) -m bench $(ARGS)

.PHONY: bench-limiter
bench-limiter: ## compare the rate limiter with others: 5 minutes
#: Rewrites the tables of docs/rate-limiting.md.
	@.ci/set-up requirements-dev.txt
	@exec $(python) -m bench.limiter.run --write $(ARGS)
