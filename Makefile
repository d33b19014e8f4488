PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PYTHONDONTWRITEBYTECODE :=  # compiled modules halve the time in which a process starts, and many start

.PHONY: demo test lint bench clean

demo: $(VENV)/.installed        ## a guest OS reads a disk through its ATA ports, then at three levels
	$(BIN)/iovirt demo

# Files as they come, not by their number of tests: the slowest ones have few, would come last, and a core would wait.
test: $(VENV)/.installed-dev    ## unit, contract, property, process and guest tests
	dir=$$(mktemp -d /tmp/iov.XXXXXX) && trap 'rm -rf "$$dir"' EXIT && \
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder \
	  --basetemp "$$dir/t"  # short, whatever TMPDIR is: sockets lie below it

lint: $(VENV)/.installed-dev    ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed       ## speed, as ratios to a bare relay in the same run
	$(BIN)/iovirt bench

clean:                          ## everything that was made here
	-test ! -x $(BIN)/iovirt || $(BIN)/iovirt down >/dev/null 2>&1
	rm -rf $(VENV) .iovirt build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(VENV)/.installed $@
