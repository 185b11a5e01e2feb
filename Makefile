# Two commands do everything on a fresh machine: `make quickstart` and `make test`.

PYTHON ?= python3
BIN := .venv/bin
RUN := quickstart

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# The virtual environment is brought up to date when a requirements file changes.
.venv/installed: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv .venv || { echo "error: $(PYTHON) cannot make a virtual environment (Debian: apt install python3-venv)" >&2; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

setup: .venv/installed  ## make .venv with all that the project needs

# CMA-ES, because with a V and M of so little training the mirrored pairs were slower (docs/RESULTS.md).
quickstart: .venv/installed  ## the whole pipeline at small scale, ending in a score and a GIF
	$(BIN)/python data/generation_script.py --rollouts 160 --rootdir datasets/$(RUN) --threads 8
	$(BIN)/python trainvae.py --logdir $(RUN) --dataset datasets/$(RUN) --epochs 1
	$(BIN)/python trainmdrnn.py --logdir $(RUN) --dataset datasets/$(RUN) --epochs 8
	$(BIN)/python traincontroller.py --logdir $(RUN) --generations 20 --eval-every 20 \
		--search cma --pop-size 32 --n-samples 4 --sigma 0.1
	$(BIN)/python test_controller.py --logdir $(RUN) --episodes 20 --json $(RUN)/score.json --record $(RUN)/driver.gif
	@echo
	@echo "curves   $(RUN)/vae/curve.png $(RUN)/mdrnn/curve.png $(RUN)/ctrl/curve.png"
	@echo "returns  $(RUN)/score.json"
	@echo "driver   $(RUN)/driver.gif"
	@$(BIN)/python -c "import json; s = json.load(open('$(RUN)/score.json')); print(f\"score    {s['mean']:.1f} +- {s['std']:.1f} over {s['episodes']} unseen tracks\")"

reproduce: .venv/installed  ## train the shipped driver from nothing, in rounds (52 minutes on 2 cores with AMX)
	PYTHON="$(CURDIR)/$(BIN)/python" ./reproduce.sh reproduce

test: .venv/installed  ## run all tests, in two processes
	$(BIN)/python -m pytest -n 2

lint: .venv/installed  ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: help setup quickstart reproduce test lint
