# Every target works on a machine with only Python and make: .venv is made and filled when it is missing or out of date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo tour play live runtime live-models test kills fuzz soak sanitize lint format bench bench-quality bench-static docs site clean

demo: $(VENV)/demo
	$(BIN)/lexel demo --out runs/demo --overwrite

# Codes, tokens, a prior, new pictures and files, and a page that shows it. Fashion-MNIST comes from Debian.
tour: $(VENV)/tour
	test -d /usr/share/datasets/fashion-mnist || (apt-get update && apt-get install --yes dataset-fashion-mnist)
	$(BIN)/lexel tour --out runs/tour

# The scripts and style sheets of the pages from web, since a page that is opened from disk loads no modules. Needs node and npm.
play live:
	mkdir -p build/web
	cp web/build.js web/package.json build/web
	cd build/web && npm install --silent --no-package-lock --no-audit --no-fund && node build.js ../.. $@

# onnxruntime for the page of a live model, one script of 3.7 MB; it changes with its version alone.
runtime:
	mkdir -p build/runtime
	cp web/runtime/build.js web/runtime/package.json build/runtime
	cd build/runtime && npm install --silent --no-package-lock --no-audit --no-fund && node build.js ../../web/runtime ../../src/lexel/export/page

# The models and photographs of docs/live, trained where runs/live holds none: about half an hour on one core.
live-models: $(VENV)/dev
	OMP_NUM_THREADS=1 $(BIN)/python docs/live/models.py

# The pages of docs, the figures and the API as a site, in build/site, which opens from disk.
docs: $(VENV)/docs site

site:
	rm -rf build/pages
	mkdir -p build/pages
	git ls-files 'README*' CHANGELOG.md CONTRIBUTING.md LICENSE CITATION.cff docs benchmarks/results 'src/lexel/*.py' \
		| xargs cp --parents -t build/pages
	cp src/lexel/export/page/* build/pages/docs/live
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

test: $(VENV)/dev
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

# Fifty kills of training runs, each of which must come to the end of the run that was left alone.
kills: $(VENV)/dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.training.kills 50

# Five thousand damaged files of all kinds, each of which must be refused in a line or read right.
fuzz: $(VENV)/dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz 5000

# 20,000 steps of training and 100,000 of moving averages, which must stay as they begin. Reads /proc: for Linux.
soak: $(VENV)/dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.soak

# The search kernel under AddressSanitizer and UndefinedBehaviorSanitizer.
sanitize:
	cmake -S . -B build/sanitize -DLEXEL_SANITIZE=ON
	cmake --build build/sanitize --target lexel_nearest_check
	build/sanitize/lexel_nearest_check

lint: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/dev
	$(BIN)/python -m benchmarks

# Goes on where it stopped. Fashion-MNIST comes from Debian.
bench-quality: $(VENV)/dev
	test -d /usr/share/datasets/fashion-mnist || (apt-get update && apt-get install --yes dataset-fashion-mnist)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.quality

# Codebooks beside converged k-means; goes on where it stopped.
bench-static: $(VENV)/dev
	$(BIN)/python -m benchmarks.static

clean:
	rm -rf $(VENV) build dist runs .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/demo $(VENV)/tour $(VENV)/docs $(VENV)/dev: pyproject.toml constraints.txt CMakeLists.txt $(VENV)/modules $(wildcard src/lexel/nearest/csrc/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(@F)]'
	touch $@

# An editable install knows each module by name: it is out of date when one comes or goes, or becomes a package.
$(VENV)/modules: FORCE
	@mkdir -p $(@D)
	@find src -name '*.py' | sort | cmp -s - $@ || find src -name '*.py' | sort > $@

FORCE:
