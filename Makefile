# make quickstart   a real sweep from nothing: environment, training, decoding, laws, report
# make test         environment, linters, tests
# make test-slow    what takes long: clusters over ssh, by job submit, under a stand-in for SLURM; every kind under every budget
# make test-faults  the fault matrix: real sweeps, killed, torn, filled up and shared
# make cluster-tools  what the tests of clusters need of Debian; they are skipped where it cannot be had
# make chromium       what the tests of the report's page need of Debian; they are skipped where it cannot be had
# make env          the environment alone; built again only when pyproject.toml or constraints.txt change

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: env quickstart lint test test-slow test-faults cluster-tools chromium clean

env: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "installing the environment into $(VENV) (about 2 GB, a few minutes) ..."
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@echo "compiling the search ..."
	$(RUN) -m workers.decoding.compile
	@touch $@

quickstart: $(INSTALLED)
	$(RUN) run_grid.py grids/quickstart.yaml
	$(RUN) fit_laws.py results/quickstart

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

test: lint
	$(RUN) -m pytest -m "not slow and (not faults or short)"

test-slow: $(INSTALLED)
	$(RUN) -m pytest -m "slow and not faults"

test-faults: $(INSTALLED)
	$(RUN) -m pytest -m faults

cluster-tools:
	@if PATH="$$PATH:/usr/sbin" command -v sshd > /dev/null && command -v rsync > /dev/null && command -v nc > /dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
		apt-get install -y -qq --no-install-recommends openssh-server rsync netcat-openbsd; \
	else echo "openssh-server, rsync or netcat-openbsd are missing, and only root can install them: no cluster tests"; fi

chromium:
	@if command -v chromium > /dev/null || command -v google-chrome > /dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; \
	else echo "Chromium is missing, and only root can install it: the page is not tested in a browser"; fi

clean:
	rm -rf $(VENV) gridlaw.egg-info .mypy_cache .ruff_cache .pytest_cache
