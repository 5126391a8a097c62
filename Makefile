# make demo    set up, run the demo suite, and say where the tables and figures are
# make claims  train what the claims need (digits, and MNIST where RAW has it) and say which hold: docs/claims.md
# make pages   the page of each folder of recorded results, in build/pages
# make stand-in  every experiment of the paper on generated images
# make recorded FROM=results/real  keep a suite's finished runs in results/recorded, and draw each experiment there
# make test    set up and run the tests
# make golden  numbers computed by the published code itself, from a clone of it, and the tests that compare with them
# make kill-test N=100  kill training, games, data and the workflow so often: docs/reliability.md
# make slurm-test  start a SLURM of one node on this machine (needs root) and run the workflow on it: docs/cluster.md
# make bundle  one folder for a machine without a network that has PyTorch: docs/cluster.md
# make gpu-check  everything that is checked on a GPU, in eight minutes: benchmarks/README.md
# make docs    the documentation as a site, in build/site; a broken link or an unknown name fails
# RAW=folder   raw data (MNIST, …) that you have already: make demo RAW=/my/data
PYTHON ?= python3
CORES ?= 2
RAW ?= data/raw
REPORT ?= build/gpu-check
GPU_PYTHON ?= 3.12
BIN = .venv/bin
N ?= 100
SNAKEMAKE = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakemake

.PHONY: FORCE demo claims pages stand-in recorded docs test test-slow test-gpu test-oldest container-test page-test crate-test reference-test slurm-test lint bench lock clean
.PHONY: kill-test golden bundle gpu-bundle gpu-check

# A killed Snakemake leaves its lock; where none lives, it is taken away.
UNLOCK = $(BIN)/python workflow/living.py || $(SNAKEMAKE) --cores 1 --unlock

demo: .venv/installed
	@$(UNLOCK) --config raw="$(RAW)"
	$(SNAKEMAKE) --cores $(CORES) --config raw="$(RAW)" --report results/demo/report.html --report-after-run
	@cat results/demo/tables/tables.md
	@printf '\nPage:    results/demo/index.html (open it in a browser)\nTables:  results/demo/tables/\nFigures: results/demo/figures/\nReport:  results/demo/report.html\n'

EVIDENCE = suite=config/evidence.yaml raw="$(RAW)"
# Of ablations and inherited errors on digits the evidence has some runs too.
RECORDED = $(filter-out results/recorded/ablations_% results/recorded/inherited_digits/%,$(wildcard results/recorded/*/runs))

claims: .venv/installed
	@$(UNLOCK) --config $(EVIDENCE)
	$(SNAKEMAKE) --cores $(CORES) --config $(EVIDENCE)
	BLIP_GOLDEN="$${BLIP_GOLDEN:-tests/golden/golden.npz}" $(BIN)/blip claims results/evidence/runs $(RECORDED) --out results/evidence/claims; status=$$?; \
	  $(BIN)/blip page results/evidence/runs --out results/evidence/index.html --title evidence; exit $$status

PAGES = $(patsubst results/recorded/%/runs,build/pages/%.html,$(wildcard results/recorded/*/runs))

pages: $(PAGES)

build/pages/%.html: results/recorded/%/runs .venv/installed FORCE
	$(BIN)/blip page $< --out $@ --title $* --beside results/recorded/$*

FORCE:

FROM ?= results/real

recorded: .venv/installed
	set -e; for runs in $(FROM)/runs/*; do \
	  finished=$$(cd $$runs && ls -d */*/run.json) 2>/dev/null || continue; \
	  out=results/recorded/$${runs##*/}; \
	  for run in $$finished; do to=$$out/runs/$${runs##*/}/$${run%/*/*}; mkdir -p $$to; cp -R $$runs/$${run%/*} $$to; done; \
	  $(BIN)/blip tables $$out/runs --out $$out/tables; $(BIN)/blip figures $$out/runs --out $$out/figures; \
	  find $$out/figures -name '*.pdf' -delete; \
	done

STAND_IN = suite=config/stand-in.yaml raw=data/stand-in data=data/stand-in/prepared

stand-in: .venv/installed
	$(BIN)/blip stand-in data/stand-in
	@$(UNLOCK) --config $(STAND_IN)
	$(SNAKEMAKE) --cores $(CORES) --config $(STAND_IN)
	@cat results/stand-in/tables/tables.md

test: .venv/installed
	$(BIN)/pytest -n $(CORES) --dist worksteal

test-slow: .venv/installed
	$(BIN)/pytest -m slow

# The published code is downloaded, unless PUBLISHED=folder names a clone, and run; another SEED draws other numbers.
PUBLISHED ?= build/published
SEED ?= 0

golden: .venv/installed | $(PUBLISHED)
	$(BIN)/python tests/make_golden.py "$(PUBLISHED)" build/golden --seed $(SEED)
	BLIP_GOLDEN=build/golden/golden.npz BLIP_GOLDEN_GAMES=build/golden/golden-games.npz $(BIN)/pytest tests/test_golden.py tests/test_golden_games.py

build/published:
	rm -rf $@.part
	git clone --quiet https://github.com/Yujun-Shi/BLIP $@.part
	git -C $@.part checkout --quiet c09814df47fa5ef5a030f7e825c406ae0377fe46
	mv $@.part $@

kill-test: .venv/installed
	cd tests && PYTHONPATH="$(CURDIR)" "$(CURDIR)/$(BIN)/python" kill_campaign.py $(N)

test-gpu: .venv/installed
	$(BIN)/pytest -m gpu

# The library's core with the oldest versions that pyproject.toml allows, PyTorch's among them (several GB of packages);
# with more of it: make test-oldest CORE='data cli results …'
CORE = formulas fisher freezing golden networks methods descent devices graphs image_training

test-oldest: .venv/installed
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python build/oldest
	$(BIN)/uv pip install --quiet --python build/oldest/bin/python --resolution lowest-direct --editable '.[rl]' 'pytest>=8.2' 'hypothesis>=6.100'
	build/oldest/bin/python -m pytest $(CORE:%=tests/test_%.py)

container-test: .venv/installed
	$(BIN)/pytest -m container

# The page in a real browser: Debian's chromium and chromium-driver, or any Chromium with its driver on the path.
page-test: .venv/installed
	$(BIN)/pytest -m browser tests/test_page_browser.py

# The validators stand apart: one needs an older rich than the linters do.
crate-test: .venv/installed
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python build/validator
	$(BIN)/uv pip install --quiet --python build/validator/bin/python 'roc-validator==0.13.*' 'rocrate>=0.14' 'mlcroissant>=1.1'
	$(BIN)/pytest -m crate tests/test_crate.py tests/test_croissant.py

# rliable stands apart: what it needs (arch) is not for the tested version of pandas yet.
reference-test: .venv/installed
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python build/reference
	$(BIN)/uv pip install --quiet --python build/reference/bin/python 'rliable>=1.2' 'pandas<3'
	$(BIN)/pytest -m reference tests/test_statistics.py

slurm-test: .venv/installed
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint envs/constraints.txt snakemake-executor-plugin-slurm
	$(BIN)/pytest -m slurm tests/slurm

lint: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/snakefmt --check Snakefile workflow
	$(SNAKEMAKE) --lint
	$(BIN)/hadolint Dockerfile
	$(BIN)/python docs/assemble.py build/docs

docs: .venv/installed
	$(BIN)/python docs/assemble.py build/docs
	$(BIN)/zensical build --strict --clean

bench: .venv/installed
	$(BIN)/python benchmarks/run.py

gpu-check: .venv/installed
	$(BIN)/python benchmarks/gpu_check $(REPORT) --raw "$(RAW)"

BUNDLE = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python envs/bundle/make.py --python $(GPU_PYTHON) --raw "$(RAW)"

bundle: .venv/installed
	$(BUNDLE) build/bundle

# Less: such a machine has the usual scientific packages.
gpu-bundle: .venv/installed
	$(BUNDLE) build/gpu-bundle --most 60 --there torchvision numpy scipy pandas scikit-learn matplotlib

HASHED = --generate-hashes --no-header --no-annotate --python-version 3.11

# The tested versions, and what the image installs. They name no registry: where packages come from is the
# installer's setting.
lock: .venv/installed
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --no-header --upgrade -o envs/constraints.txt
	$(BIN)/uv pip compile pyproject.toml --extra workflow --extra rl $(HASHED) --python-platform x86_64-manylinux_2_28 -c envs/constraints.txt -o envs/cuda.lock.txt
	printf 'setuptools\nwheel\n' | $(BIN)/uv pip compile - $(HASHED) -o envs/build.lock.txt

clean:
	rm -rf .venv results/demo results/evidence results/inherited results/stand-in data/prepared data/stand-in

.venv/installed: pyproject.toml envs/constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint envs/constraints.txt uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint envs/constraints.txt --editable '.[workflow,rl,dev,docs]'
	touch $@
