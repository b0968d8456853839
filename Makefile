# make demo · make test · make test-all · make check · make bench · make bench-real · make bench-quality · make models
# demo, test, check and bench do all of their own set-up, in .venv, and do it once.
PYTHON ?= python3
BIN := .venv/bin
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-all test-durations check bench bench-real bench-reconstruct bench-quality models segmenter segmenter-planes states container wheel site \
	test-container test-engine test-lowest lock clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /make \1|/p' $(MAKEFILE_LIST) | column -t -s '|'

.venv/.ready: requirements.txt
	@echo "set-up: virtual environment .venv with requirements.txt (a few minutes, once)"
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else f"set-up: expected Python 3.11 or newer, got {v.major}.{v.minor}; name another one: make PYTHON=python3.11")'
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/.ready-dev: .venv/.ready pyproject.toml
	@echo "set-up: tools for tests and checks, and the 'lightsheet' command"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: .venv/.ready ## the whole job on simulated data: train, fuse, score, report (about 8 minutes)
	@$(BIN)/python -m recipes.demo --output demo

# One worker a core, eight at most as each takes a GiB or two; a worker's libraries then have one thread.
PARALLEL := -n logical --maxprocesses 8 --dist worksteal
QUICK := not slow and not bench
test test-slow test-all test-lowest: export OMP_NUM_THREADS = 1

test: .venv/.ready-dev ## the tests of every capability (about five minutes on two cores)
	$(BIN)/python -m pytest $(PARALLEL) -m '$(QUICK)' $(TESTS)

test-slow: .venv/.ready-dev ## what 'make test' leaves out: long tests, benchmark scripts, more files damaged at random
	LIGHTSHEET_FUZZ=$${LIGHTSHEET_FUZZ:-300} $(BIN)/python -m pytest $(PARALLEL) -m 'slow or bench or fuzz' --hypothesis-seed 0 $(TESTS)

# Parts and not one run: 'make test test-all' runs each once.
test-all: test test-slow test-lowest test-engine ## all tests: test, test-slow, test-lowest, and the container's where an engine is

test-durations: .venv/.ready-dev ## the twenty slowest tests of 'make test', one at a time; TESTS=tests/fuse for some
	$(BIN)/python -m pytest --durations 20 -m '$(QUICK)' $(TESTS)

check: .venv/.ready-dev ## lint, format and types
	$(BIN)/ruff check Source tests benchmarks recipes
	$(BIN)/ruff format --check Source tests benchmarks recipes
	$(BIN)/mypy
	MYPYPATH=Source:tests:. $(BIN)/mypy --config-file tests/mypy.ini tests benchmarks recipes

bench: .venv/.ready ## conversion, training step and evaluation against the reference's way
	$(BIN)/python -m benchmarks.speed.convert
	$(BIN)/python -m benchmarks.speed.training_step
	$(BIN)/python -m benchmarks.speed.evaluate

bench-real: .venv/.ready ## the commands on real stacks (../shared/data), views made by the forward model
	$(BIN)/python -m benchmarks.fusion.real_stacks

bench-reconstruct: .venv/.ready ## tiled prediction against the reference's scheme and MONAI (about 25 minutes)
	@$(BIN)/python -c 'import monai, openvino' 2> /dev/null || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[monai,openvino]'
	$(BIN)/python -m benchmarks.tiling.reconstruct --figure docs/figures/reconstruct_cost.png

bench-quality: .venv/.ready ## scores of our models, the published ways and doing nothing
	@$(BIN)/python -c 'import monai, openvino' 2> /dev/null || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[monai,openvino]'
	$(BIN)/python -m benchmarks.fusion.quality $(if $(wildcard ../shared/data),--real ../shared/data)

models: .venv/.ready ## train the models of resources/models, on simulated data and real stacks (hours on two cores)
	$(BIN)/python -m recipes.models --start resources/starts/Generalist $(if $(wildcard ../shared/data),--stacks ../shared/data)

segmenter: .venv/.ready ## train resources/models/Segment_Nuclei3D, on simulated movies and real stacks (an hour on two cores)
	$(BIN)/python -m recipes.segmenter $(if $(wildcard ../shared/data),--stacks ../shared/data)

segmenter-planes: .venv/.ready ## train resources/models/Segment_Nuclei2D, on real images (an hour on two cores; needs ../shared/data)
	$(BIN)/python -m recipes.nuclei2d --stacks ../shared/data

states: .venv/.ready ## train resources/models/NucleusState, on simulated movies (half an hour on two cores)
	$(BIN)/python -m recipes.states

wheel: .venv/.ready-dev ## sdist and wheel in dist, models inside; the version is that of the git tag
	$(BIN)/python -m build --no-isolation --outdir dist

site: .venv/.ready-dev ## the pages of docs as a site, in site
	$(BIN)/mkdocs build

LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url \
	--no-emit-find-links --custom-compile-command 'make lock' --override Docker/without_torch.txt $(if $(UPGRADE),--upgrade)

lock: .venv/.ready-dev ## write the lock files for the lists of packages; UPGRADE=1 takes the newest versions
	$(LOCK) requirements.txt --output-file requirements.lock
	$(LOCK) Docker/requirements-predict.txt --output-file Docker/requirements-predict.lock
	$(LOCK) Docker/requirements-sbom.txt --output-file Docker/requirements-sbom.lock

LOWEST := .venv-lowest
# torch first, by pip: the others then resolve to the build that is there.
$(LOWEST)/.ready: .venv/.ready-dev requirements.txt
	@echo "set-up: virtual environment $(LOWEST) with the lowest versions that requirements.txt allows"
	@$(PYTHON) -m venv $(LOWEST)
	@$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' requirements.txt)"
	@$(BIN)/uv pip install --quiet --python $(LOWEST) --resolution lowest-direct -r requirements.txt \
		'pytest>=8.3,<10' 'pytest-timeout>=2.3,<3' 'pytest-xdist>=3.6,<4' 'hypothesis>=6.100,<7' 'hdf5plugin>=5,<8'
	@touch $@

test-lowest: $(LOWEST)/.ready ## the tests of readers, writers, prediction and container with the lowest allowed versions
	$(LOWEST)/bin/python -m pytest $(PARALLEL) -m '$(QUICK)' tests/core tests/volumes tests/specimen tests/datasets tests/networks \
		tests/inference/test_predict.py tests/runtimes/test_loading.py tests/classify tests/track tests/fuse/test_guard.py tests/fuse/test_guarded.py \
		tests/fuse/test_kept_results.py tests/operate/test_container.py tests/operate/test_container_faults.py \
		tests/operate/test_serve.py tests/operate/test_serve_ends.py

container: ## build the challenge's container (CPU variant) and write the file to upload; needs docker or podman
	@bash Build_Docker_ForGC.sh --variant cpu

test-container: .venv/.ready-dev ## build and run real images, good and sabotaged; needs docker or podman (minutes)
	LIGHTSHEET_CONTAINER_TESTS=1 $(BIN)/python -m pytest tests/container -s

# Where no engine answers and none can be installed, this says so and is done.
test-engine: .venv/.ready-dev ## the same on the small variant, with an engine that is installed where it can be
	@if settings=$$(bash tests/container/prepare.sh); then \
		while IFS='=' read -r name value; do export "$$name=$$value"; done <<< "$$settings"; \
		LIGHTSHEET_TEST_VARIANT=slim $(MAKE) test-container; \
	fi

clean: ## remove the environment and what the demo made
	rm -rf .venv .venv-lowest demo
