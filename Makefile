# make demo   the shortest way to see it work: sets up .venv, then plays, trains and compares on this machine's CPU
# make test   linting, types and the fast tests; its halves are `make lint` and `make fast`
# make slow   the long tests                  make lowest   the tests of coars_env on the oldest libraries
# make docs   the site, into site/            make plugins  other people's algorithms learning in the game
# make format mend what `make lint` finds     make clean    remove everything made here, .venv included
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest --quiet --numprocesses 2 --dist worksteal --durations 8
LOWEST := .venv-lowest

.PHONY: demo test lint format fast slow docs lowest plugins clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed-llm
	$(BIN)/coars demo

test: lint fast

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fast: $(VENV)/.installed-dev
	$(PYTEST)

slow: $(VENV)/.installed-dev
	$(PYTEST) -m "slow and not gpu and not network"

# One thread each, since two trainings run side by side.
plugins: $(VENV)/.installed-plugins
	OMP_NUM_THREADS=1 $(PYTEST) -m plugins tests/plugins

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs --quiet build --strict

# The oldest versions that pyproject.toml promises, without extras: what needs torch must not be needed here.
lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest --quiet --numprocesses 2 tests/coars_env tests/test_architecture.py

clean:
	rm -rf $(VENV) $(LOWEST) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Set-up, repeated only when what is to be installed has changed.

$(BIN)/pip $(LOWEST)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, found " + \
	  sys.version.split()[0] + ". Say which to use: make PYTHON=/path/to/python3.11 ...")'
	@echo "Creating $(@D:/bin=) ..."
	@$(PYTHON) -m venv $(@D:/bin=)

$(VENV)/.installed-llm: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing coars-env and its libraries into $(VENV) (torch is large: some minutes, once) ..."
	@$(PIP) install --constraint constraints.txt --editable '.[llm]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing coars-env, its libraries and the developer's tools into $(VENV) (some minutes, once) ..."
	@$(PIP) install --constraint constraints.txt --editable '.[llm,mf,quantized,server,api,dev]'
	@touch $(VENV)/.installed-llm $@

$(VENV)/.installed-plugins: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Adding Stable-Baselines3, TorchRL and Tianshou to $(VENV) (some minutes, once) ..."
	@$(PIP) install --constraint constraints.txt --editable '.[llm,mf,quantized,server,api,dev,sb3,torchrl,tianshou]'
	@touch $(VENV)/.installed-llm $(VENV)/.installed-dev $@

$(LOWEST)/.installed: pyproject.toml | $(LOWEST)/bin/pip
	@echo "Installing the oldest supported libraries into $(LOWEST) ..."
	@$(LOWEST)/bin/python -c 'import tomllib; \
	  print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
	  | sed 's/>=/==/' > $(LOWEST)/pins.txt
	@$(LOWEST)/bin/python -m pip --quiet --disable-pip-version-check install \
	  --requirement $(LOWEST)/pins.txt hypothesis pytest pytest-xdist
	@$(LOWEST)/bin/python -m pip --quiet --disable-pip-version-check install --no-deps --editable .
	@touch $@
