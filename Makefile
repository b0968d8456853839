# make demo · make test · make check · make bench · make bench-real · make bench-quality · make models
# demo, test, check and bench do all of their own set-up, in .venv, and do it once.
PYTHON ?= python3
BIN := .venv/bin
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test check bench bench-real bench-reconstruct bench-quality models container test-container clean

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
	@$(BIN)/python benchmarks/demo.py --output demo

test: .venv/.ready-dev ## run the tests
	$(BIN)/python -m pytest

check: .venv/.ready-dev ## lint, format and types
	$(BIN)/ruff check Source tests benchmarks
	$(BIN)/ruff format --check Source tests benchmarks
	$(BIN)/mypy

bench: .venv/.ready ## conversion, training step and evaluation against the reference's way
	$(BIN)/python benchmarks/convert.py
	$(BIN)/python benchmarks/training_step.py
	$(BIN)/python benchmarks/evaluate.py

bench-real: .venv/.ready ## the commands on real stacks (../shared/data), views made by the forward model
	$(BIN)/python benchmarks/real_stacks.py

bench-reconstruct: .venv/.ready ## tiled prediction against the reference's scheme and MONAI (about 25 minutes)
	@$(BIN)/python -c 'import monai, openvino' 2> /dev/null || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[monai,openvino]'
	$(BIN)/python benchmarks/reconstruct.py --figure docs/figures/reconstruct_cost.png

bench-quality: .venv/.ready ## scores of our models, the published ways and doing nothing
	@$(BIN)/python -c 'import monai, openvino' 2> /dev/null || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[monai,openvino]'
	$(BIN)/python benchmarks/fusion_quality.py $(if $(wildcard ../shared/data),--real ../shared/data)

models: .venv/.ready ## train the models of resources/models on simulated data (hours on two cores)
	$(BIN)/python benchmarks/models.py

container: ## build the challenge's container (CPU variant) and write the file to upload; needs docker or podman
	@bash Build_Docker_ForGC.sh --variant cpu

test-container: .venv/.ready-dev ## build and run real images, good and sabotaged; needs docker or podman (minutes)
	LIGHTSHEET_CONTAINER_TESTS=1 $(BIN)/python -m pytest tests/container -s

clean: ## remove the environment and what the demo made
	rm -rf .venv demo
