# Two commands matter to a newcomer: `make demo` and `make test`. Each does all of its own set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export OPENBLAS_NUM_THREADS ?= 1
# Each of the many processes that tests start would compile every module anew, a third of the start of an operator.
unexport PYTHONDONTWRITEBYTECODE
# vLLM of the version that the rules in planner/engines were read in; 10 GB, so apart from the checkout and kept.
VLLM_VERSION := 0.33.0
VLLM_VENV ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/energylens/vllm-$(VLLM_VERSION)

.DEFAULT_GOAL := help
.PHONY: help demo test test-unit ui-test coverage fuzz faults transitions soak image sbom image-test engine-test lint format generate gallery docs lock clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: $(STAMP) ## Show the main job on a real control plane on this machine, then clean up
	$(BIN)/python tools/demo.py

# Each worker of the control-plane tests runs control planes of its own, 1 to 2 GB. Most of their time they wait; what
# needs no control plane fills that time, and gives way where both want the processor.
CLUSTER_WORKERS ?= 4
IN_WORKERS := --dist loadfile --no-loadscope-reorder
# Not written out below: make runs a line that names itself even under `make -n`.
LINT := $(MAKE) --no-print-directory lint

test: $(STAMP) ## Run all tests: linters, unit, fault, control-plane and end-to-end tests
	@$(BIN)/python tools/side_by_side.py \
	  --lane cluster 'env ENERGYLENS_DEV_PORTS=20000-27999 $(BIN)/pytest -n $(CLUSTER_WORKERS) $(IN_WORKERS) tests/e2e tests/controlplane' \
	  --lane checks 'nice -n 5 $(LINT)' \
	    'nice -n 5 env ENERGYLENS_DEV_PORTS=28000-29999 $(BIN)/pytest -n auto --dist worksteal --ignore=tests/controlplane --ignore=tests/e2e'

test-unit: $(STAMP) ## Run the tests that need no control plane (a few minutes)
	$(BIN)/pytest -n auto --dist worksteal tests/unit tests/faults

ui-test: $(STAMP) ## Look at the pages of `energylens ui` in a Chromium of this machine (CHROMIUM=PATH); skipped without one
	$(BIN)/pytest tests/ui -rs

coverage: $(STAMP) ## Say which statements unit and fault tests run; lines added since BASE (where the branch left main) have a floor
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n auto --dist worksteal tests/unit tests/faults
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage json --quiet
	$(BIN)/python tools/coverage_floor.py coverage.json $(if $(BASE),--base $(BASE))

fuzz: $(STAMP) ## Plan 20,000 random valid specs, clusters and budgets (an hour or two); FUZZ_EXAMPLES=N for another number
	ENERGYLENS_FUZZ_EXAMPLES=$(or $(FUZZ_EXAMPLES),20000) $(BIN)/pytest tests/fuzz -p no:cacheprovider

faults: $(STAMP) ## Play every scenario under every fault between operator and API server (hours); PART=3/8 plays the third of eight parts
	ENERGYLENS_PART=$(PART) ENERGYLENS_FAULTS=all $(BIN)/pytest tests/controlplane/test_operator_faults.py tests/controlplane/check_upgrade.py tests/controlplane/test_operator_availability.py -rP

transitions: $(STAMP) ## Walk an LLMDeployment through 2,000 specs drawn from the schema (an hour or two); CHANGES=N for another number, PART=3/8 for a part
	ENERGYLENS_PART=$(PART) ENERGYLENS_TRANSITIONS=$(or $(CHANGES),2000) $(BIN)/pytest tests/controlplane/check_transitions.py -rP

soak: $(STAMP) ## Change specs 10,000 times and watch the operator's memory and open files (an hour or two); CHANGES=N for another number, PART=3/8 for a part
	ENERGYLENS_PART=$(PART) ENERGYLENS_SOAK=$(or $(CHANGES),10000) $(BIN)/pytest tests/controlplane/test_operator_soak.py -rP

# An empty BASE_IMAGE leaves the base image to the Dockerfile; a release pins its digest.
image: $(STAMP) ## Build the operator's image, the same for the same commit; IMAGE=REGISTRY/energylens:0.1.0 ENGINE=podman BASE_IMAGE=python:3.13-slim@sha256:...
	$(BIN)/python -m tools.image $(if $(IMAGE),--tag=$(IMAGE)) $(if $(ENGINE),--engine=$(ENGINE)) $(if $(BASE_IMAGE),--base=$(BASE_IMAGE))

sbom: $(VENV)-sbom/.installed ## List the packages of the image with versions and licences in dist/energylens.cdx.json (CycloneDX)
	mkdir -p dist
	$(VENV)-sbom/bin/cyclonedx-py environment $(VENV)-image/bin/python --pyproject pyproject.toml --mc-type application --output-reproducible --output-file dist/energylens.cdx.json

# The packages of the image, installed as the Dockerfile installs them, beside the program that lists them.
$(VENV)-sbom/.installed: requirements/sbom.txt requirements/image.txt
	$(PYTHON) -m venv --clear $(VENV)-sbom
	$(PYTHON) -m venv --clear --without-pip $(VENV)-image
	$(VENV)-sbom/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(VENV)-sbom/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/sbom.txt
	$(VENV)-sbom/bin/python -m pip --python $(VENV)-image/bin/python install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements/image.txt
	@touch $@

image-test: $(STAMP) ## Build the Dockerfile without a daemon and run the image until an example is Ready (root, buildah, crun)
	$(BIN)/python -m tools.image_test

engine-test: $(STAMP) ## Feed the command lines of plans to vLLM's own parser and configuration (installs vLLM, 10 GB, outside the checkout)
	@test -x "$(VLLM_VENV)/bin/vllm" || { $(PYTHON) -m venv "$(VLLM_VENV)" && "$(VLLM_VENV)/bin/python" -m pip install --quiet --disable-pip-version-check vllm==$(VLLM_VERSION); } \
	  || { echo "engine-test: vLLM $(VLLM_VERSION) could not be installed in $(VLLM_VENV); set VLLM_VENV to an environment that has it" >&2; exit 1; }
	VLLM_PYTHON="$(VLLM_VENV)/bin/python" $(BIN)/pytest tests/engines/check_vllm.py --timeout=3600

lint: $(STAMP) ## Run ruff, mypy, the import contracts, the check of generated files and of words
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m energylens.api.crd --check
	$(BIN)/python tools/layers.py --check
	$(BIN)/python -m tools.chart_readme --check
	$(BIN)/python tools/prose.py

format: $(STAMP) ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

generate: $(STAMP) ## Write crds/, the chart's copy, docs/api.md and the chart's table of values
	$(BIN)/python -m energylens.api.crd
	$(BIN)/python tools/layers.py
	$(BIN)/python -m tools.chart_readme

gallery: $(STAMP) ## Write the expected output of every example and the samples of docs/cli.md anew, after a wanted change
	$(BIN)/python -m tests.gallery write

clean: ## Remove the virtual environment and caches of this checkout
	rm -rf $(VENV) $(VENV)-docs $(VENV)-lock $(VENV)-sbom $(VENV)-image dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis

docs: $(VENV)-docs/.installed ## Build the site of docs/ into site/, with every link checked
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build --strict --quiet

$(VENV)-docs/.installed: requirements/docs.txt
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(VENV)-docs/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/docs.txt
	@touch $@

LOCK_VENV := .venv-lock
COMPILE = UV_CUSTOM_COMPILE_COMMAND="make lock" $(LOCK_VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes --no-annotate $(UPGRADE)

lock: ## Resolve dependencies anew into requirements/, with hashes; UPGRADE=--upgrade takes the newest that pyproject.toml allows
	test -x $(LOCK_VENV)/bin/uv || { $(PYTHON) -m venv $(LOCK_VENV) && $(LOCK_VENV)/bin/python -m pip install --quiet 'uv>=0.9,<1'; }
	$(COMPILE) requirements/build.in -o requirements/build.txt
	$(COMPILE) pyproject.toml -o requirements/image.txt
	$(COMPILE) pyproject.toml --extra dev -c requirements/image.txt -o requirements/dev.txt
	$(COMPILE) --group docs -o requirements/docs.txt
	$(COMPILE) requirements/sbom.in -o requirements/sbom.txt

# From the lock only: --require-hashes refuses any file that is not in it.
$(STAMP): pyproject.toml requirements/build.txt requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; $(PYTHON) is older. Set PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/build.txt -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
