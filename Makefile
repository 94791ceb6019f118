# Every target sets up what it needs. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
export UV_PYTHON_DOWNLOADS := never
# Tests and demo must not see a person's own settings.
CLEAN_ENV := env -u MIGE_API_URL -u MIGE_API_KEY -u MIGE_HOME

.DEFAULT_GOAL := help
OUTPUT := .benchmarks
PUBLISHED :=
.PHONY: help setup serve demo test test-fast check benchmarks format lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|' 2>/dev/null || grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST)

setup: $(STAMP) ## Build the environment in .venv from requirements.lock

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' || \
	  { echo "Python 3.11 to 3.14 is needed; '$(PYTHON)' is `$(PYTHON) -V 2>&1`. Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@sh deploy/bootstrap.sh "$(PYTHON)" "$(VENV)"
	@touch $(STAMP)

serve: $(STAMP) ## Run the service on this machine (Ctrl-C ends it)
	$(BIN)/mige serve $(ARGS)

demo: $(STAMP) ## Train, download and use an encoder: make demo [ARGS="--dataset mnist"]
	@$(CLEAN_ENV) $(BIN)/python -m services.demo $(ARGS)

test: $(STAMP) ## Run every test that this machine can run
	$(CLEAN_ENV) $(BIN)/python -m pytest $(ARGS)

test-fast: $(STAMP) ## Run the fast tests only
	$(CLEAN_ENV) $(BIN)/python -m pytest -m "not slow and not ray and not gpu and not statistical" $(ARGS)

check: $(STAMP) ## Lint, format, spelling, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/lint-imports

benchmarks: $(STAMP) ## Measure the estimators (hours): make benchmarks PUBLISHED=mige-repository/toy/results [ARGS=--quick]
	@test -n "$(PUBLISHED)" || { echo "PUBLISHED is not set: name the folder with mige_8.npz, mine_8.npz, ... of the MIGE repository (toy/results)"; exit 2; }
	$(BIN)/python tests/benchmarks/authors_toy.py $(PUBLISHED) $(OUTPUT)/toy $(ARGS)
	$(BIN)/python tests/benchmarks/score_cost.py $(OUTPUT)/cost $(ARGS)
	$(BIN)/python tests/benchmarks/calibration_suite.py $(OUTPUT)/suite $(ARGS)

format: $(STAMP) ## Rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(STAMP) ## Resolve the dependencies anew for every platform and Python
	$(BIN)/uv pip compile --universal --python-version 3.11 --extra dev --generate-hashes --no-emit-index-url \
	  --no-header --no-annotate --upgrade pyproject.toml -o requirements.lock

clean: ## Remove what the targets above have made
	rm -rf $(VENV) .demo .benchmarks .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
