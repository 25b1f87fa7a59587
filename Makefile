# The commands of this book; `make help` lists them.

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SCRIPTS := $(VENV)/share/clbook
PYTHONS := python3.11 python3.12 python3.13 python3.14 python3
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))

.DEFAULT_GOAL := help
.PHONY: help book pdf slides repository test figures test-mnist test-oldest test-bands test-colab lint fuzz benchmark gpu gpu-wheels clean
.DELETE_ON_ERROR:

help:  ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

book: $(INSTALLED)  ## build the book from the stored outputs into _build/html (SOLUTIONS=0: without those of the exercises)
	@rm -rf _build/html _build/.doctrees  # a page that warned once must warn again
	@$(BIN)/jupyter-book build . -W -n --keep-going
	@echo "The book: $(CURDIR)/_build/html/index.html"

pdf: $(INSTALLED)  ## the whole book as one PDF, _build/clbook.pdf; needs Chromium or Chrome
	@$(BIN)/python book/pdf.py

slides: $(INSTALLED)  ## every figure of the book with its caption, into _build/slides
	@$(BIN)/python book/slides.py

repository:  ## set where the repository lives, in every file: make repository URL=https://github.com/you/your-book
	@python3 book/repository.py $(URL)

test: $(INSTALLED)  ## every test: the package, the notebooks on small data, the built book; in two processes (JOBS=... for more)
	CLBOOK_PRESET=quick $(BIN)/pytest --numprocesses=$(or $(JOBS),2) --dist=loadfile --no-loadscope-reorder --nbval-lax tests notebooks

figures: $(INSTALLED)  ## run every notebook at book size and store its outputs (NOTEBOOKS=... for some)
	CLBOOK_PRESET=book $(BIN)/python notebooks/execute.py $(NOTEBOOKS)

test-mnist: $(INSTALLED)  ## run the cells of every notebook at book size, on MNIST and Fashion-MNIST
	CLBOOK_PRESET=book $(BIN)/pytest --nbval-lax $(NOTEBOOKS)

lint: $(INSTALLED)  ## the checks of style and of types
	$(BIN)/ruff check .
	$(BIN)/mypy

fuzz: $(INSTALLED)  ## ten thousand damaged files and odd command lines, fifty killed runs
	CLBOOK_FUZZ=10000 CLBOOK_KILLS=50 CLBOOK_PRESET=quick $(BIN)/pytest tests/test_fuzz.py tests/test_kill.py

benchmark: $(INSTALLED)  ## time the package beside Avalanche, in turns; writes benchmarks/results.json
	@test -x .venv-avalanche/bin/python || $(BIN)/python -m venv .venv-avalanche
	@.venv-avalanche/bin/pip install --quiet --disable-pip-version-check avalanche-lib==0.6.0
	$(BIN)/python benchmarks/speed.py --avalanche .venv-avalanche/bin/python

gpu:  ## on a machine with a GPU, nine minutes: CUDA against CPU, figure A, stacks, permuted MNIST; writes benchmarks/gpu.json
	$(or $(PYTHON),python3) benchmarks/gpu.py

gpu-wheels: $(BIN)/pip  ## for a GPU machine without a network: what PyTorch does not bring along, as wheels in .wheels (PYVER=3.12)
	$(BIN)/pip download --quiet --no-deps --only-binary=:all: --python-version $(or $(PYVER),3.12) --dest .wheels \
	  $$(grep -E '^(pydantic|pydantic.core|annotated.types|typing.inspection|typing.extensions|jaxtyping|wadler.lindig|tqdm)==' constraints.txt)

test-oldest: .venv-oldest/.installed  ## the tests of the package with the oldest dependencies that pyproject.toml allows, on Python 3.11
	CLBOOK_PRESET=quick .venv-oldest/bin/pytest -q tests --ignore=tests/browser --ignore=tests/test_book.py

test-bands: .venv-oldest/.installed  ## how far other seeds, threads and PyTorch move the printed numbers (NOTEBOOKS=..., CLBOOK_PRESET=book)
	$(BIN)/python tests/bands.py $(NOTEBOOKS)

test-colab: $(INSTALLED)  ## every notebook on small data as Colab runs it, in an environment that has no clbook yet; needs a network
	$(BIN)/python tests/colab.py $(NOTEBOOKS)

.venv-oldest/.installed: pyproject.toml tests/oldest.py | $(INSTALLED)
	@test -x .venv-oldest/bin/python || $(or $(PYTHON),python3.11) -m venv .venv-oldest
	@$(BIN)/python tests/oldest.py > .venv-oldest/oldest.txt
	@.venv-oldest/bin/pip install --quiet --disable-pip-version-check -r .venv-oldest/oldest.txt
	@.venv-oldest/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

clean:  ## remove everything that was built or installed here
	rm -rf _build $(VENV) .venv-avalanche .venv-oldest .wheels *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis

# Once; again when what is to be installed changes.
$(INSTALLED): requirements.txt constraints.txt pyproject.toml book/_ext/package-lock.json | $(BIN)/pip
	@echo "Installing what the book needs into $(VENV), once: some minutes and 6 GB, most of it PyTorch."
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt -c constraints.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@mkdir -p $(SCRIPTS) && cp book/_ext/package.json book/_ext/package-lock.json $(SCRIPTS)
	@PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --prefix $(SCRIPTS) --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null || \
	  echo "npm could not install MathJax 4: the book is built with MathJax 3, and long formulas will scroll on a phone." >&2
	@touch $@

# The first Python that works. PYTHON=... names another.
$(BIN)/pip:
	@for python in $(or $(PYTHON),$(PYTHONS)); do \
	  $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null || continue; \
	  $$python -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo "$$python cannot make a virtual environment here. Install it with: apt install python3-venv" >&2; exit 1; }; \
	  $$python -m venv $(VENV) && exit 0; \
	  rm -rf $(VENV); echo "$$python could not make $(VENV)." >&2; exit 1; \
	done; \
	echo "No Python 3.11 to 3.14 found (looked for: $(or $(PYTHON),$(PYTHONS)))." >&2; \
	echo "Install one with: apt install python3 python3-venv" >&2; exit 1
