# Everything a developer runs. `make` alone lists it. Needs make and a Python from 3.11 to 3.14; the rest goes into .venv.
.DEFAULT_GOAL := help
.NOTPARALLEL:
SHELL := /bin/sh

# The first Python that fits; `make PYTHON=/path/to/python3 install` takes another. Asked only when .venv has to be made.
PYTHON_FITS = import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 15))
PYTHON = $(firstword $(foreach python,python3 python3.14 python3.13 python3.12 python3.11,$(shell $(python) -c '$(PYTHON_FITS)' 2>/dev/null && echo $(python))))

BIN := .venv/bin
INSTALLED := .venv/.installed
# Faust has no wheel for Linux on arm64. Its C extensions are left out: they speed up what the worker goes past.
FROM_SOURCE = $(if $(filter Linux-aarch64,$(shell uname -s -m | tr ' ' -)),--no-binary faust-streaming)
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
SLOWEST := --durations=15 --durations-min=1
# Most tests wait for servers more than they count. A file's tests stay together and in order; the longest files come first.
SIDE_BY_SIDE := --numprocesses=2 --dist=loadfile --no-loadscope-reorder

.PHONY: help
help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: install
install: $(INSTALLED) ## make .venv with everything: the product, the servers, the tests, the tools

$(INSTALLED): requirements-dev.lock
	@$(if $(PYTHON),,echo 'make: no Python from 3.11 to 3.14 with the module ensurepip was found. Install one (Debian: python3 and python3-venv),' >&2; echo 'or name it: make PYTHON=/path/to/python3 install' >&2; exit 1)
	@test -x $(BIN)/python || { echo 'making .venv with $(PYTHON)'; '$(PYTHON)' -m venv .venv; }
	@echo 'installing what requirements-dev.lock names (a minute the first time)'
	@NO_CYTHON=1 $(BIN)/python -m pip --disable-pip-version-check install --quiet --require-hashes --only-binary :all: $(FROM_SOURCE) -r requirements-dev.lock
	@touch $@

.PHONY: check
check: install ## lint, format, types, import contracts, and that locks and generated pages are fresh
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m tools.locks --check
	$(BIN)/python -m tools.settings_reference --check
	$(BIN)/python -m tools.boards --check

.PHONY: test
test: install ## all tests, against real Kafka, SQS, Postgres and Prometheus that they start themselves
	@$(BIN)/python -m dev_servers fetch
	$(BIN)/python -m pytest $(SLOWEST) $(SIDE_BY_SIDE)

.PHONY: test-fast
test-fast: install ## the tests that need no server (seconds)
	$(BIN)/python -m pytest $(SLOWEST) tests/unit tests/property

.PHONY: demo
demo: install ## the whole chain on made-up logins; INPUT=FILE takes yours, KEEP=1 stays up; then SEND=NUMBER, KILL=NAME
	$(BIN)/python -m $(if $(SEND),dev_servers.running_demo send '$(SEND)',$(if $(KILL),dev_servers.running_demo kill '$(KILL)',dev_servers.demo $(if $(INPUT),--input '$(INPUT)') $(if $(KEEP),--keep)))

.PHONY: crash
crash: install ## every fault, with a checker that counts; LIST=1 names them, FAULT=NAME plays one, SEED=NUMBER as it was
	$(if $(LIST),@PYTHONPATH=tests $(BIN)/python -m crash list,CRASH_WHOLE=1 CRASH_FAULT='$(FAULT)' CRASH_SEED='$(SEED)' $(BIN)/python -m pytest $(if $(FAULT),,--numprocesses=2) tests/crash/test_crash.py)

.PHONY: stops
stops: install ## SIGTERM to each process while each server is away, silent or slow; how long each stop took; minutes
	$(BIN)/python -m pytest -s tests/crash/stops_grid.py

.PHONY: soak
soak: install ## faults by chance under load for MINUTES=NUMBER, SEED=NUMBER as it was; one table at the end
	PYTHONPATH=tests $(BIN)/python -m crash soak --minutes '$(or $(MINUTES),10)'$(if $(SEED), --seed '$(SEED)')

.PHONY: alerts
alerts: install ## breaks workers, the bridge, SQS, Postgres and the input, and waits for the right alerts on a real Prometheus; minutes
	ALERTS_WHOLE=1 $(BIN)/python -m pytest -s tests/monitoring/test_live_monitoring.py -k alert_fires

.PHONY: alertmanager
alertmanager: install ## one fault is one page, told by the Alertmanager on the PATH (Debian: apt-get install prometheus-alertmanager)
	ALERTMANAGER=1 $(BIN)/python -m pytest tests/monitoring/test_alertmanager.py

.PHONY: bench
bench: install ## every benchmark, and peers that are there; one table, and a file in benchmarks/results; an hour or so
	$(BIN)/python -m benchmarks $(OPTIONS)

.PHONY: bench-worker
bench-worker: install ## rows per second of one worker, beside peers and limits
	$(BIN)/python -m benchmarks.worker $(OPTIONS)

.PHONY: bench-bridge
bench-bridge: install ## messages per second of one bridge, beside peers and the limit
	$(BIN)/python -m benchmarks.bridge $(OPTIONS)

.PHONY: bench-latency
bench-latency: install ## seconds from sent to visible through the whole chain
	$(BIN)/python -m benchmarks.latency $(OPTIONS)

.PHONY: bench-growth
bench-growth: install ## cost with 20 million rows, 64 partitions, duplicates, more workers
	$(BIN)/python -m benchmarks.growth $(OPTIONS)

.PHONY: bench-memory
bench-memory: install ## memory of a worker; OPTIONS='--only minutes --minutes 30' for long
	$(BIN)/python -m benchmarks.memory --rounds 1 $(OPTIONS)

.PHONY: bench-handover
bench-handover: install ## how long a partition stands still when workers come and go
	$(BIN)/python -m benchmarks.handover $(OPTIONS)

.PHONY: bench-peers
bench-peers: install ## fetch what others offer for the same work, to be measured beside ours
	$(BIN)/python -m benchmarks.peers

.PHONY: wheel
wheel: install ## dist/login_stream-…-py3-none-any.whl: the whole product for machines without the checkout
	@$(BIN)/python -m hatchling build --target wheel

.PHONY: lock
lock: install ## after a change of dependencies in pyproject.toml: compile both lock files and install them
	$(COMPILE) pyproject.toml -o requirements.lock
	$(COMPILE) pyproject.toml --group dev -c requirements.lock -o requirements-dev.lock
	$(COMPILE) benchmarks/peers/quix-streams.in -o benchmarks/peers/quix-streams.lock
	$(COMPILE) benchmarks/peers/aiobotocore.in -o benchmarks/peers/aiobotocore.lock
	@$(MAKE) --no-print-directory install

.PHONY: reference
reference: install ## after a change of a setting: write docs/reference/settings.md and pipeline/setting_names.py
	$(BIN)/python -m tools.settings_reference

.PHONY: boards
boards: install ## after a change in tools/boards: write grafana/dashboards
	$(BIN)/python -m tools.boards

.PHONY: format
format: install ## put the code into ruff's form
	$(BIN)/ruff check --quiet --fix .
	$(BIN)/ruff format --quiet .

.PHONY: clean
clean: ## remove .venv and all caches
	rm -rf .venv .cache .demo .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
