# Everything is set up by what needs it: python3 (3.11 or newer, with venv) and make are enough.
# `make help` lists what there is to do.

UV_VERSION := 0.13.9
UV := .cache/uv-$(UV_VERSION)/bin/uv
PYTHON := .venv/bin/python
export UV_PYTHON_DOWNLOADS := never
export PYTHONSAFEPATH := 1

.DEFAULT_GOAL := help
.PHONY: help venv demo test check generate install-manifests bench accuracy oracle faults fuzz clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: .venv/.complete ## .venv with everything, the shardgate command in its bin

$(UV):
	@echo "fetching uv $(UV_VERSION)"
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "python3 is %d.%d: 3.11 or newer is needed" % sys.version_info[:2])'
	@mkdir -p .cache && dir=$$(mktemp -d .cache/uv-XXXXXX) && python3 -m venv $$dir \
	  && $$dir/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION) \
	  && { mv -T $$dir .cache/uv-$(UV_VERSION) 2>/dev/null || rm -rf $$dir; }

# uv locks the environment itself, so that two runs at once do not disturb each other.
.venv/.complete: pyproject.toml uv.lock | $(UV)
	@echo "installing the locked packages into .venv"
	@$(UV) sync --frozen --quiet && touch $@

demo: venv ## both reference deployments on a real control plane, step by step (ARGS=--keep leaves it running)
	@$(PYTHON) deploy/local/demo.py $(ARGS)

test: venv ## all tests, on real control planes, two at a time (ARGS are pytest's)
	@PYTHONPATH=deploy/local $(PYTHON) -m controlplane.binaries > /dev/null
	@PYTHONPATH=deploy/local $(PYTHON) -m controlplane.tools helm promtool prometheus > /dev/null
	@PYTHONPATH=deploy/local $(PYTHON) -m controlplane.browser > /dev/null
	@$(PYTHON) -m pytest -n 2 --dist loadfile $(ARGS)

check: venv ## style, types, layers, generated files
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports
	@$(PYTHON) deploy/generate.py --check

generate: venv ## CRDs, RBAC, webhooks, the chart's copies of them and its README, the pages of findings, metrics and alerts, golden reports
	@$(PYTHON) deploy/generate.py
	@$(PYTHON) tests/golden_reports.py --write

install-manifests: venv ## deploy/install.yaml and deploy/agents.yaml, rendered from the chart by helm
	@$(PYTHON) deploy/render_install.py

bench: venv ## figures at 5,000 nodes and 20,000 pods on a real control plane (ARGS=--nodes N --pods N)
	@$(PYTHON) tests/bench/bench.py $(ARGS)

accuracy: venv ## predictions against what was measured, into docs/accuracy.md and docs/performance-accuracy.md (MEMORY=FILE or PERFORMANCE=FILE, OUT=FILE.json; MANIFESTS=DIR)
	@$(PYTHON) tests/accuracy/accuracy.py $(if $(MEMORY),--memory $(MEMORY)) $(if $(PERFORMANCE),--performance $(PERFORMANCE)) $(if $(OUT),--out $(OUT)) $(if $(MANIFESTS),--manifests $(MANIFESTS))

oracle: venv ## placement against the real kube-scheduler on N random clusters of a SEED (500, 1), or on a kept CASE
	@$(PYTHON) tests/oracle/oracle.py $(if $(N),--number $(N)) $(if $(SEED),--seed $(SEED)) $(if $(CASE),--case $(CASE))

faults: venv ## races, restarts, broken control planes at length, two at a time, into docs/reliability.md (FULL=1: at full length; PREVIOUS=REVISION: an upgrade from it)
	@PYTHONPATH=deploy/local $(PYTHON) -m controlplane.binaries > /dev/null
	@PYTHONPATH=deploy/local $(PYTHON) -m controlplane.tools prometheus > /dev/null
	@run() { FAULTS=$(if $(FULL),full,long) PREVIOUS=$(PREVIOUS) $(PYTHON) -m pytest tests/cluster "$$@" $(ARGS); \
	    code=$$?; [ $$code -eq 5 ] || [ $$code -eq 0 ] || ended=$$code; }; ended=0; rm -f .cache/faults*.xml; \
	  run -m "fault and not alone" -n 2 --dist loadfile --junitxml=.cache/faults.xml; \
	  run -m "fault and alone" --junitxml=.cache/faults-alone.xml; \
	  $(PYTHON) tests/cluster/reliability_page.py .cache/faults*.xml --write docs/reliability.md \
	  --length $(if $(FULL),full,long) && exit $$ended

fuzz: venv ## N reviews, scripts and command lines that nobody would write (100000), of a SEED (1)
	@$(PYTHON) tests/fuzz/fuzz.py $(if $(N),--number $(N)) $(if $(SEED),--seed $(SEED))

clean: ## remove what was made here (the control plane's cache stays: ~/.cache/shardgate)
	rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist
