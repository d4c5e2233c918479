# steelseg: `make demo` runs it on synthetic data, `make test` tests it. Both create .venv if needed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo

.PHONY: setup demo test test-export lint types imports unit torture format docs build bench clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "steelseg needs Python 3.11 or newer; set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup
	@rm -rf $(DEMO)
	$(BIN)/steelseg synth $(DEMO)/data --num-train 48 --num-test 12 --height 128 --width 800 --min-per-class 8
	$(BIN)/steelseg run configs/demo.yaml --out $(DEMO)/run --overlays
	@printf '%s\n' '' \
	  'Results' \
	  '  $(DEMO)/run/submission.csv       the masks of the test strips, for Kaggle' \
	  '  $(DEMO)/run/metrics.json         scores on held-out strips' \
	  '  $(DEMO)/run/overlays_oof/        truth and prediction of every held-out strip' \
	  '  $(DEMO)/run/overlays/            the test strips with their outlines' \
	  '' \
	  'Your own data: a folder with train_images/, train.csv and test_images/' \
	  '  $(BIN)/steelseg check configs/precropped.yaml data.root=FOLDER' \
	  '  $(BIN)/steelseg run configs/precropped.yaml data.root=FOLDER --out outputs/first'

test: lint types imports unit

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports

# Two processes with one thread each, because threads that wait for each other's cores spin.
unit: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

# Every promise of docs/reliability.md, with full counts; that page says how long it takes.
torture: setup
	$(BIN)/python -m torture

# Takes minutes per network, because torch's ONNX exporter traces each one.
test-export: setup
	$(BIN)/python -m pytest -m export

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The generated pages of docs/, then the site into site/; a broken link is an error.
docs: setup
	$(BIN)/python tools/reference.py docs
	$(BIN)/mkdocs build --strict

# About an hour, because it trains two networks. Single rows: benchmarks/table.py bench --rows rle
bench: setup
	$(BIN)/python benchmarks/table.py bench

build: setup
	$(BIN)/python -m build

clean:
	rm -rf $(VENV) $(DEMO) bench dist site
