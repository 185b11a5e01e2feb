# Two commands do everything on a fresh machine: `make quickstart` and `make test`.

PYTHON ?= python3
BIN := .venv/bin
RUN := quickstart

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# The virtual environment is brought up to date when a requirements file changes. With LOCKED=1 it gets the exact versions
# of requirements.lock, without it the newest that the ranges in requirements.txt allow.
INSTALLED := .venv/installed$(if $(LOCKED),-locked)
$(INSTALLED): requirements.txt requirements-ray.txt requirements-dev.txt $(if $(LOCKED),requirements.lock)
	$(PYTHON) -m venv .venv || { echo "error: $(PYTHON) cannot make a virtual environment (Debian: apt install python3-venv)" >&2; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check -r $(if $(LOCKED),requirements.lock,requirements-dev.txt)
	@touch $@

setup: $(INSTALLED)  ## make .venv with all that the project needs (LOCKED=1: in the exact versions of requirements.lock)

lock: $(INSTALLED)  ## write requirements.lock anew, for every system and Python from 3.10 on
	$(BIN)/pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile --universal --python-version 3.10 --quiet --no-header --output-file requirements.lock requirements-dev.txt

quickstart: $(INSTALLED)  ## the whole pipeline at small scale, ending in a score and a GIF
	$(BIN)/python data/generation_script.py @presets/quickstart --rootdir datasets/$(RUN)
	$(BIN)/python trainvae.py @presets/quickstart --logdir $(RUN) --dataset datasets/$(RUN)
	$(BIN)/python trainmdrnn.py @presets/quickstart --logdir $(RUN) --dataset datasets/$(RUN)
	$(BIN)/python traincontroller.py @presets/quickstart --logdir $(RUN)
	$(BIN)/python test_controller.py @presets/quickstart --logdir $(RUN) --json $(RUN)/score.json --record $(RUN)/driver.gif
	@echo
	@echo "curves   $(RUN)/vae/curve.png $(RUN)/mdrnn/curve.png $(RUN)/ctrl/curve.png"
	@echo "returns  $(RUN)/score.json"
	@echo "driver   $(RUN)/driver.gif"
	@$(BIN)/python -c "import json; s = json.load(open('$(RUN)/score.json')); print(f\"score    {s['mean']:.1f} +- {s['std']:.1f} over {s['episodes']} unseen tracks\")"

reproduce: $(INSTALLED)  ## train the shipped driver from nothing, in rounds (52 minutes on 2 cores with AMX)
	$(BIN)/python -m recipes.reproduce

dream: $(INSTALLED)  ## train a driver in M's dream alone (80 minutes on one core)
	$(BIN)/python -m recipes.dream

doom: $(INSTALLED)  ## learn Take Cover, the second game, in M's dream, and score the driver in the real one
	$(BIN)/python -m recipes.doom

dream-page: $(INSTALLED)  ## write the page on which anyone can play in the shipped dreams, into page/
	$(BIN)/python export_dream.py --logdir pretrained/dream --out page
	$(BIN)/python export_dream.py --logdir pretrained/takecover --out page

# The tests of a file share what takes long to make (a cluster, a page, a dataset), and so a process. conftest.py has put
# the slow files first.
test: $(INSTALLED)  ## run all tests, in two processes
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(INSTALLED)  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: help setup lock quickstart reproduce dream doom dream-page test lint
