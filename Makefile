# Everything a person or a build machine does with this tree. `make` alone lists it.
#
# Only Python 3.11 or newer has to be there. Each target installs what it needs into .venv, from the
# hashed requirement files, and again only when one of those files has changed.

# Another interpreter, for example PYTHON=python3.13, gets an environment of its own.
ifdef PYTHON
  ifndef VENV
    VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
    VENV := .venvs/python-$(VERSION)
  endif
endif
VENV ?= .venv
PY := $(VENV)/bin/python
PYTEST_ARGS ?=
# `make test-random` draws a seed unless it is told one.
TOLD_SEED := $(SEED)
SEED ?= 42
# After how many seconds `make test-random` ends, whatever is left. Its draws take some 15 to 20 minutes of one core.
RANDOM_S ?= 1800
SEEDS ?= 0..1000
ROUNDS ?= 200
CHAOS_ARGS ?=
JOBS ?= 2
FUZZ_ARGS ?=
# A wheel to test instead of this tree: make test WHEEL=dist/lowtide-0.1.0-py3-none-any.whl
export WHEEL
# An environment of its own: schemathesis brings a plugin that every run of pytest would load.
FUZZ_VENV := .venvs/fuzz$(if $(PYTHON),-$(notdir $(PYTHON)))
export PYTHON

PEERS_VENV := .venvs/peers
VLLM_VENV ?= build/vllm
RAY_VENV := .venvs/ray$(if $(PYTHON),-$(notdir $(PYTHON)))
DOCS_VENV := .venvs/docs$(if $(PYTHON),-$(notdir $(PYTHON)))
# And one for the pictures of bench-live, which nothing else needs.
PLOTS_VENV := .venvs/plots$(if $(PYTHON),-$(notdir $(PYTHON)))
LIVE_ARGS ?=
TENANTS_ARGS ?=

.DEFAULT_GOAL := help
# Two targets install into one environment.
.NOTPARALLEL:
.PHONY: help run test test-random sim sim-long lint coverage check format docs docs-site bench bench-live bench-tenants bench-console bench-console-cost bench-fleet bench-vllm bench-peers webhook-kills big-files million-lines million-rows demo screenshots test-clients test-console test-cookbook test-pages test-real test-ray test-chaos test-vllm test-vllm-real fuzz-api pins wheel vllm-wheel clean

help: ## list the targets
	@awk -F ' *## *' '/^[a-z-]+:.*## / { sub(/:.*/, "", $$1); printf "  make %-14s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  PYTHON=python3.13 chooses the interpreter, PYTEST_ARGS='-k store' what pytest is given."

run: $(VENV)/.ready-requirements $(VENV)/.ready-requirements-demo ## set up, start Lowtide with the demo model, run the example batch, show the answers
	@$(PY) examples/run_demo.py

# Without the demo model, for example with no network, the tests that speak of content are skipped.
test: $(VENV)/.ready-requirements-test ## the whole test suite
	@$(MAKE) --no-print-directory $(VENV)/.ready-requirements-demo || true
	$(PY) -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-random: $(VENV)/.ready-requirements-test ## the property tests with fresh draws, twenty times as many (ten minutes on two free cores, RANDOM_S=1800 at most): make test-random SEED=42
	@seed=$(or $(TOLD_SEED),$$($(PY) -c 'import secrets; print(secrets.randbelow(2**32))')); \
	echo "These draws once more: make test-random SEED=$$seed"; \
	$(PY) -m pytest -n auto --maxprocesses 8 --dist load -m hypothesis \
	  --hypothesis-profile random --hypothesis-seed $$seed \
	  --timeout $(RANDOM_S) --session-timeout $(RANDOM_S) $(PYTEST_ARGS)

sim: $(VENV)/.ready-requirements-test ## play one seed of the simulated system: make sim SEED=42
	$(PY) -m testkit.sim --seed $(SEED)

sim-long: $(VENV)/.ready-requirements-test ## play a thousand seeds: make sim-long JOBS=2
	$(PY) -m testkit.sim --seeds $(SEEDS) --jobs $(JOBS)

lint: $(VENV)/.ready-requirements-dev ## style, spelling, types, import rules and known vulnerabilities, without running tests
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(VENV)/bin/typos
	$(PY) -m mypy
	$(VENV)/bin/lint-imports
	$(PY) tools/check_deploy.py
	$(PY) tools/audit.py

# A test that fails is told by `make test`; here it only covers less. Processes that are killed write nothing down.
coverage: $(VENV)/.ready-requirements-dev ## which part of each module the tests run (some twenty minutes), in build/coverage
	@rm -rf build/coverage && mkdir -p build/coverage
	$(PY) -m coverage run -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder -q $(PYTEST_ARGS) || true
	$(PY) -m coverage combine --quiet && $(PY) -m coverage json --quiet -o build/coverage/modules.json
	$(PY) tools/module_coverage.py build/coverage/modules.json

check: lint coverage ## all that `make lint` does, and `make coverage`

format: $(VENV)/.ready-requirements-dev ## let ruff mend what it can
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

docs: $(VENV)/.ready-requirements-test ## write the generated parts of docs/ from the code
	$(PY) tools/generated_docs.py --write

docs-site: $(DOCS_VENV)/.ready-requirements-docs ## the documentation as a site with search, in build/site
	$(DOCS_VENV)/bin/python tools/docs_site.py build/site

bench: $(VENV)/.ready-requirements-test ## measure this machine
	$(PY) -m bench

big-files: $(VENV)/.ready-requirements-test ## five gigabytes in parts through both vendors' clients (20 GB of disk, minutes)
	$(PY) -m bench.big_files

million-lines: $(VENV)/.ready-requirements-test ## a batch of a million lines, and the memory of every process (minutes)
	$(PY) -m bench.million_lines

million-rows: $(VENV)/.ready-requirements-test ## a table of a million rows, and the memory that it takes (minutes)
	$(PY) -m bench.million_rows

bench-tenants: $(VENV)/.ready-requirements-test ## one good tenant among ten hostile ones, for ten minutes
	$(PY) -m bench.hostile_tenants $(TENANTS_ARGS)

bench-console: $(VENV)/.ready-requirements-test ## pages of a million lines and of ten thousand batches (minutes)
	$(PY) -m bench.console $(CONSOLE_ARGS)

bench-console-cost: $(VENV)/.ready-requirements-test ## what twenty open pages, and the history that they show, take from a running batch (eight minutes)
	$(PY) -m bench.console_cost pages
	$(PY) -m bench.console_cost history

bench-fleet: $(VENV)/.ready-requirements-test ## lines on 32 engines that come and go, processes killed: make bench-fleet FLEET_ARGS='--lines 10000000 --seconds 12000'
	$(PY) -m bench.fleet $(FLEET_ARGS)

bench-vllm: $(VENV)/.ready-requirements-test ## the same work by vLLM's run-batch and through Lowtide, on the CPU (installs 2 GB, minutes)
	sh tools/vllm_env.sh $(VLLM_VENV) $(PYTHON_VLLM)
	$(PY) -m bench.vllm_race --vllm $(VLLM_VENV)/bin/python $(RACE_ARGS)

bench-peers: $(VENV)/.ready-requirements-test ## the same, beside Ray Data and LiteLLM (installs 3 GB, twenty minutes)
	sh tools/vllm_env.sh $(VLLM_VENV) $(PYTHON_VLLM)
	[ -x $(PEERS_VENV)/bin/python ] || python3 -m venv $(PEERS_VENV)
	$(PEERS_VENV)/bin/python -m pip install --quiet "ray[data]==2.60.0" "litellm==1.109.1"
	$(PY) -m bench.vllm_race --vllm $(VLLM_VENV)/bin/python --peers $(PEERS_VENV)/bin/python $(RACE_ARGS)

webhook-kills: $(VENV)/.ready-requirements-test ## a thousand webhooks across twenty kills of the server (a few minutes)
	$(PY) -m bench.webhook_kills $(WEBHOOK_ARGS)

bench-live: $(PLOTS_VENV)/.ready-requirements-plots ## batch beside live traffic, in virtual time: tables and pictures
	$(PLOTS_VENV)/bin/python -m bench.live_traffic $(LIVE_ARGS)

demo: $(VENV)/.ready-requirements-test ## the console with simulated engines, live traffic and batches in every state; Ctrl-C ends it
	@$(PY) -m testkit.demo $(DEMO_ARGS)

screenshots: $(VENV)/.ready-requirements-test ## pictures of the console's pages from a demo, in build/screenshots (needs chromium)
	@$(PY) -m testkit.demo.screenshots $(SCREENSHOTS_ARGS)

test-clients: $(VENV)/.ready-requirements-test ## run against older and newer client libraries (downloads them)
	$(PY) tests/clients/run.py

# What `make test` has of it, and the same facts in other colours, at other widths and without streams.
test-console: $(VENV)/.ready-requirements-test ## all that a browser and axe can say of the console (needs chromium, two minutes)
	$(PY) -m pytest tests/browser/test_console_browser.py tests/browser/console_variants.py $(PYTEST_ARGS)

# What `make test` does with the random model, with the real one, and the answers on the pages compared.
test-cookbook: $(VENV)/.ready-requirements-test $(VENV)/.ready-requirements-demo ## follow the pages of the cookbook with the demo model (minutes)
	PAGES_MODEL=demo $(PY) -m pytest tests/docs/test_cookbook.py $(PYTEST_ARGS)

# The same with README, CONTRIBUTING, examples/README.md and the how-to pages.
test-pages: $(VENV)/.ready-requirements-test $(VENV)/.ready-requirements-demo ## follow README and every how-to page, block by block (minutes)
	PAGES_MODEL=demo $(PY) -m pytest tests/docs/test_pages.py tests/docs/test_postgres_blocks.py $(PYTEST_ARGS)

test-real: $(VENV)/.ready-requirements-test ## run against Debian's PostgreSQL and Ceph's S3 gateway (installs them)
	$(PY) tests/real/run.py $(PYTEST_ARGS)

test-ray: $(RAY_VENV)/.ready-requirements-ray $(RAY_VENV)/.ready-requirements-demo ## a batch on Ray Serve while it is scaled, loses a replica and its head (minutes; Ray is 500 MB): make test-ray RAY_ARGS='--model demo --lines 200'
	$(RAY_VENV)/bin/python tests/ray_serve/run.py $(RAY_ARGS)

test-chaos: $(VENV)/.ready-requirements-test ## kill, stop, cut off and starve real processes: make test-chaos ROUNDS=200 SEED=42
	$(PY) tests/chaos/run.py --rounds $(ROUNDS) --seed $(SEED) $(CHAOS_ARGS)

test-vllm: $(VENV)/.ready-requirements ## the scheduler class on vLLM's own scheduler, on the CPU (installs 2 GB)
	sh tools/test_vllm.sh $(PYTHON_VLLM)

# VLLM names the Python of an environment that is there; the wheel is installed into it anew.
test-vllm-real: $(VENV)/.ready-requirements-test vllm-wheel ## every feature under the scheduler class on a real vLLM on the CPU (ten minutes at most): make test-vllm-real VLLM=PYTHON
	$(if $(VLLM),,sh tools/vllm_env.sh $(VLLM_VENV) $(PYTHON_VLLM))
	$(or $(VLLM),$(VLLM_VENV)/bin/python) -m pip install --quiet --no-deps --force-reinstall dist/lowtide_vllm-*.whl
	$(PY) -m bench.step_bound_vllm.features --vllm $(or $(VLLM),$(VLLM_VENV)/bin/python) $(FEATURES_ARGS)

fuzz-api: $(FUZZ_VENV)/.ready-requirements-fuzz ## thousands of odd calls, made from the OpenAPI document, beside another tenant
	$(FUZZ_VENV)/bin/python tools/fuzz_api.py $(FUZZ_ARGS)

pins: ## resolve pyproject.toml into the hashed requirement files (needs uv)
	@sh tools/pin.sh

wheel: $(VENV)/.ready-requirements ## build the wheel that a release would have, into dist/
	$(PY) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist

vllm-wheel: $(VENV)/.ready-requirements ## build the wheel of the scheduler class for vLLM, into dist/
	$(PY) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist integrations/vllm
	@ls dist

clean: ## remove what the targets made: environments, caches, the demo's results
	rm -rf .venv .venvs demo-out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src testkit tests bench tools examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.ready-requirements-demo: requirements-demo.txt tools/install_demo.sh
	@sh tools/install_demo.sh $(VENV) $<
	@touch $@

$(VENV)/.ready-%: %.txt pyproject.toml tools/install.sh
	@sh tools/install.sh $(VENV) $<
	@touch $@

$(FUZZ_VENV)/.ready-%: %.txt pyproject.toml tools/install.sh
	@mkdir -p $(dir $(FUZZ_VENV))
	@sh tools/install.sh $(FUZZ_VENV) $<
	@touch $@

$(RAY_VENV)/.ready-requirements-demo: requirements-demo.txt tools/install_demo.sh $(RAY_VENV)/.ready-requirements-ray
	@sh tools/install_demo.sh $(RAY_VENV) $<
	@touch $@

$(RAY_VENV)/.ready-%: %.txt pyproject.toml tools/install.sh
	@mkdir -p $(dir $(RAY_VENV))
	@sh tools/install.sh $(RAY_VENV) $<
	@touch $@

$(DOCS_VENV)/.ready-%: %.txt pyproject.toml tools/install.sh
	@mkdir -p $(dir $(DOCS_VENV))
	@sh tools/install.sh $(DOCS_VENV) $<
	@touch $@


$(PLOTS_VENV)/.ready-%: %.txt pyproject.toml tools/install.sh
	@mkdir -p $(dir $(PLOTS_VENV))
	@sh tools/install.sh $(PLOTS_VENV) $<
	@touch $@
