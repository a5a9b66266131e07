# `make demo` and `make test` need python3 with venv, and make; everything is installed into .venv
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q
SOURCES := $(shell find dedup -name '*.py')
DEMO := demo-out
# at once: tests wait for processes that they start, so one more than two cores have, where there is memory for it beside a Spark cluster
TEST_PROCESSES ?= $(shell awk '/^MemAvailable/ && $$2 > 12000000 { enough = 1 } END { print enough ? 3 : 2 }' /proc/meminfo 2>/dev/null || echo 2)
FUZZ_SECONDS ?= 600

.PHONY: demo test lint format docs site fuzz audit clean help

help:
	@echo 'make demo    build demo shards, de-duplicate them, draw a montage'
	@echo 'make test    lint, types, layers, documentation and all tests'
	@echo 'make lint    style, types and layers alone'
	@echo 'make format  format, and fix what ruff can'
	@echo 'make docs    regenerate docs/tables.md, configuration.md, commands.md, python.md, the drawing of architecture.md and conf/default.yaml'
	@echo 'make site    build the documentation into .venv/site; open index.html there'
	@echo 'make fuzz    tars, images and captions changed at random, ten minutes each (FUZZ_SECONDS=600), from a new seed'
	@echo 'make audit   known vulnerabilities of what is installed'
	@echo 'make clean   remove what these commands made, .venv included'

demo: $(DEMO)/.shards
	$(BIN)/dedup run input.shards='$(DEMO)/shards/*.tar' output.run_dir=$(DEMO)/run
	$(BIN)/dedup show $(DEMO)/run --largest 4 --out $(DEMO)/montage.png
	@echo
	@echo 'manifest  $(DEMO)/run/manifest/*.parquet    what to train on'
	@echo 'dropped   $(DEMO)/run/duplicates/*.parquet  with the kept image each is a copy of'
	@echo 'counts    $(DEMO)/run/statistics/*.parquet  how often, and under which captions, each image occurs'
	@echo 'targets   $(DEMO)/run/targets.jsonl          the extraction attack'"'"'s prompts, most duplicated first'
	@echo 'montage   $(DEMO)/montage.png'
	@echo 'report    $(DEMO)/run/report.html  all of it to look at, in a browser'

# changed sources change what the demo writes: start afresh then
$(DEMO)/.shards: $(SOURCES) | $(VENV)/.demo
	rm -rf $(DEMO)
	$(BIN)/dedup demo-data $(DEMO)/shards --n-images 3000
	@touch $@

test: lint site
	$(BIN)/python -m pytest -ra -n $(TEST_PROCESSES) --dist loadgroup --no-loadscope-reorder --durations 40

lint: $(VENV)/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.test
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

docs: $(VENV)/.test
	$(BIN)/python docs/generate.py

site: $(VENV)/.test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir $(VENV)/site

fuzz: $(VENV)/.test
	for target in images tars captions; do $(BIN)/python tests/fuzzing.py $$target --seconds $(FUZZ_SECONDS) --seed $$(date +%s) || exit 1; done

# the auditor lives in an environment of its own, so that it does not audit itself
audit: $(VENV)/.test
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --disable-pip-version-check -q pip-audit
	$(VENV)/audit/bin/pip-audit $(foreach path,$(wildcard $(VENV)/lib/python*/site-packages),--path $(path))

clean:
	rm -rf $(VENV) $(DEMO) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: pyproject.toml | $(VENV)/.created
	@echo 'installing webdedup[cpu,demo,report] into $(VENV)'
	$(PIP) -e '.[cpu,demo,report]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/.created
	@echo 'installing webdedup with all extras for CPUs into $(VENV): about 6 GB, mostly torch; minutes, once'
	$(PIP) -e '.[cpu,demo,clip,extraction,spark,s3,lance,formats,serve,report,notebooks,docs,dev]'
	@touch $@ $(VENV)/.demo
