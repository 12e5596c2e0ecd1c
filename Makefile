# `make demo` shows pusher at work, `make test` proves it; both install what they need on Debian.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
STAMP := .venv/.installed
REQUIREMENTS := requirements-dev.lock $(wildcard packaging/*/*)

.PHONY: setup demo test docs services services-stop check audit bench faults soak hostile fuzz clean

setup: $(STAMP)

$(STAMP): $(REQUIREMENTS)
	@scripts/setup "$(PYTHON)"
	@touch $@

# PORTS: the first of six ports that it uses
demo: setup
	@.venv/bin/python scripts/demo.py $(if $(PORTS),--ports $(PORTS))

test: setup
	@# Most tests wait: five at a time keep two cores busy. Daemons, brokers and browsers of a test may be starved beyond
	@# their patience then, so what fails has a second try, which the closing line counts and a line names (RERUN). A test
	@# that hangs ends its worker and the run: the two plug-ins together would wait for ever for what it left undone.
	@scripts/services run .venv/bin/pytest -q -n 5 --dist loadfile --reruns 1 --max-worker-restart 0 -r aR

services: setup
	@scripts/services start

services-stop:
	@scripts/services stop

check: setup
	@scripts/check

audit: setup
	@PYTHON="$(PYTHON)" scripts/audit

bench: setup
	@scripts/services install
	@.venv/bin/python -m bench

faults: setup
	@scripts/services install
	@.venv/bin/python -m tests.faults all $(if $(SEED),--seed $(SEED)) $(if $(RESULTS),--results $(RESULTS))

soak: setup
	@scripts/services install
	@.venv/bin/python -m tests.faults.soak

# a site of the pages in docs/, in build/site
docs: setup
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build

# peers that misbehave in every way that is known, beside an app that must not notice
hostile: setup
	@.venv/bin/pytest -q -m "hostile or not hostile" tests/hostile

# SECONDS: of fuzzing in all; see docs/fuzzing.md
fuzz: SECONDS ?= 600
fuzz: setup
	@.venv/bin/python -m tests.fuzz all --seconds $(SECONDS)

clean:
	@if [ -d .services ]; then scripts/services clean; fi
	rm -rf .venv .venv-* log .services .demo .fuzz build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
