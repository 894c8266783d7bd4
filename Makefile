# Everything runs from a bare machine with Python 3.11+ and make: the virtual environment is made on the way.
PYTHON ?= python3
VENV   := .venv
EXTRAS := parquet,zstd,images,pdf,otel,sql,remote,s3,azure,ray
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
# uv installs with an eighth of the CPU of pip. It does not read pip's settings, such as another index: where there is
# no uv, or it reaches no index, pip does all of it. What is imported is compiled at its first import, and nothing else.
INSTALL = { $(PIP) install --quiet --only-binary :all: -c constraints.txt uv && \
  UV_HTTP_RETRIES=0 $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt $(1); } || \
  { echo "uv cannot install it: pip does"; $(PIP) install --quiet --no-compile -c constraints.txt $(1); }
LOWEST := .venv-lowest
#: Whole runs, their settings and prices: each dependency is used in one of them.
LOWEST_TESTS := tests/end_to_end/test_demo.py tests/end_to_end/test_either.py tests/end_to_end/test_faults.py \
  tests/settings/test_settings_toml.py tests/limits/test_day_and_price.py tests/test_package.py
#: Processes that run tests: more than a small machine has cores, since the tests that kill processes mostly wait.
WORKERS ?= 8
COLLECTED := $(VENV)/.collected
NODE_STAMP := tests/aimock/node_modules/.stamp

# Tests start hundreds of processes. Without compiled files each of them would compile the package first.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test types cases lowest unit bench clean help

help:  ## what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## / - /'

demo: $(VENV)/.installed  ## a whole run on the sample data against the built-in endpoint; no key, no cost
	$(BIN)/labelpipe demo

test: $(VENV)/.dev  ## the whole test suite, as CI runs it
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory -j3 types cases lowest

# These three run side by side, since much of the tests is waiting. Types and lowest are told in one piece at their end.
types: $(VENV)/.dev
	@told=$$($(BIN)/mypy 2>&1); code=$$?; echo "mypy: $$told"; exit $$code

cases: $(VENV)/.dev $(NODE_STAMP) $(COLLECTED)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

# Once, and not in every worker: collecting the tests for the first time compiles them. What fails here fails in `cases`.
$(COLLECTED): $(VENV)/.dev $(shell find tests -name '*.py')
	@$(BIN)/python -m pytest --collect-only -qq >/dev/null || true
	@touch $@

lowest: $(LOWEST)/.installed  ## a few tests with the lowest versions that pyproject.toml allows
	@[ ! -x $(LOWEST)/bin/labelpipe ] || { \
	  told=$$($(LOWEST)/bin/python -m pytest -q -p no:cacheprovider -W default $(LOWEST_TESTS) 2>&1); \
	  code=$$?; echo "lowest: $$told"; exit $$code; }

unit: $(VENV)/.dev  ## the tests that kill no processes
	$(BIN)/python -m pytest -m "not chaos" $(ARGS)

bench: $(VENV)/.dev  ## speed, CPU, memory and utilisation, as ratios in one run
	$(BIN)/python -m benchmarks $(ARGS)

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "labelpipe needs Python 3.11 or later: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	@$(call INSTALL,-e .)
	@touch $@

$(VENV)/.dev: $(VENV)/.installed requirements-dev.txt
	@$(call INSTALL,-e '.[$(EXTRAS)]' -r requirements-dev.txt)
	@touch $@

# Others than the lowest come first, so that a bound that fails is told from an index that cannot be reached.
$(LOWEST)/.installed: pyproject.toml $(VENV)/.dev
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(LOWEST)
	@if $(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python pytest hypothesis; then \
	  $(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct -e .; \
	else echo "uv reaches no index: the tests with the lowest versions are skipped"; fi
	@touch $@

# An independent server to test against; without Node that one test is skipped and says so.
$(NODE_STAMP): tests/aimock/package.json
	@if command -v npm >/dev/null 2>&1; then \
	  (cd tests/aimock && npm install --no-audit --no-fund --silent) || echo "npm install failed: the aimock test will be skipped"; \
	else echo "npm is not here: the aimock test will be skipped"; fi
	@mkdir -p $(dir $@) && touch $@

clean:  ## remove what was built, but no run
	rm -rf $(VENV) $(LOWEST) .mypy_cache .ruff_cache .pytest_cache .hypothesis tests/aimock/node_modules
