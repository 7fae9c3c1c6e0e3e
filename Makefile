# Two commands: `make demo` and `make test`. Both set up .venv once and reuse it.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
SAMPLE := examples/hh-helpful-1000.jsonl.gz

export HF_HUB_OFFLINE ?= 1

.PHONY: help setup browser atlas demo test lint types format clean

help:
	@echo "make demo   build a dataset from 1,000 real pairs, look at a group, train a small model from it"
	@echo "make test   run all tests"
	@echo "make lint types format   what CI checks besides"
	@echo "make browser atlas       Chromium and embedding-atlas, without which their tests are skipped"
	@echo "make clean  remove .venv, demo/ and build files"

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# report.html is tested in Debian's Chromium; where there is none, these tests are skipped
browser:
	@command -v chromium || command -v chromium-browser || command -v google-chrome || \
	{ apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends chromium fonts-dejavu-core; } || \
	{ echo "Chromium is not here and could not be installed: install it, or run this as root on Debian" >&2; exit 1; }

# embedding-atlas, which `rpo-data explore` serves, brings 500 MB; without it its test is skipped
atlas: setup
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[explore]'

demo: setup
	rm -rf demo/model demo/run
	$(BIN)/rpo-data build $(SAMPLE) --out demo/dataset --test-fraction 0.1 --views 2
	$(BIN)/rpo-data show demo/dataset --characters 60
	$(BIN)/python -m rpo_data.pipelines.tiny_model demo/dataset demo/model
	$(BIN)/rpo-data train demo/dataset --model demo/model --out demo/run --config pipelines/recipes/train-demo.yaml

test: setup
	$(BIN)/python -m pytest -q --numprocesses 2 --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy cannot follow the folder mapping in the source tree, so it checks an installed copy
types: setup
	rm -rf build/types
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target build/types .
	MYPYPATH=build/types $(BIN)/mypy --config-file pyproject.toml -p rpo_data

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv demo build *.egg-info
