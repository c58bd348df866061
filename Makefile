# make demo   an environment, two models, and one answer over a socket with its figures
# make test   environment, models, all tests but the slow ones
# make ray    Ray, and the tests of the service on it
# make browser  a Chromium, and the tests of the page and of the app for phones in it
# make phone  the libraries of the app for phones, from npm (docs/phone.md)
# make check  style, types, import rules      make fast   the tests that need no weights
# make soak   minutes of random load          make bench  the table in README
# make peers  what `make bench` compares us with: libraries that clash with ours, each tried on a tiny model
# make bench-service  what drafting devices save a verifier, and what the service costs (docs/performance.md)
# make bench-link     a device and a verifier, a core each, at round trips of 0 to 300 ms (docs/performance.md)
# make newcomer    README's first commands in a fresh clone with an empty home, each with its time (15 minutes, 8 GB)
# make docs        docs/reference.md, from the docstrings
# make wheel-test  the wheel as a person installs it: built, and put into a fresh environment
# make clean  remove the environment (models stay)

PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Else every worker and every child of the tests compiles all modules anew.
unexport PYTHONDONTWRITEBYTECODE

PULLED := smollm2-135m-instruct
PAIR := qwen2.5-coder-1.5b-onnx qwen2.5-coder-0.5b-onnx-trim
EXPORTED := $(PAIR) smollm2-135m-onnx-general

# Bars on a terminal, no flood elsewhere.
QUIET := $(if $(MAKE_TERMOUT),,--quiet)
# llama.cpp's kernels for AMX crash as some compilers build them (docs/decisions/0002).
FLAGS := $(if $(filter x86_64,$(shell uname -m)),-mno-amx-tile -mno-amx-int8 -mno-amx-bf16)

.PHONY: demo test check fast soak ray browser phone peers bench bench-service bench-link docs newcomer wheel-test models clean
.DELETE_ON_ERROR:

# torch by exact version first: a bare requirement would bring gigabytes of GPU libraries.
.venv/torch: pyproject.toml
	@echo "==> Python's environment, with PyTorch to make models"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install $(QUIET) "torch==2.13.0"
	touch $@

# What the demo needs: nothing in it is compiled.
.venv/demo: .venv/torch
	@echo "==> Outrider, ONNX Runtime, the server"
	$(BIN)/pip install $(QUIET) -e ".[export,openvino,server,chat]"
	touch $@

# llama.cpp is compiled for this machine's processor; that takes some minutes. Its "common" library, close to half of that,
# is for its own programs; llama-cpp-python asks for it and loads it nowhere, so the script has the last word.
# Without pip's cache: a wheel of an earlier build, by other flags, would be taken for this one.
.venv/ready: .venv/torch
	@echo "==> all libraries; llama.cpp is compiled, which takes some minutes"
	@echo 'set(LLAMA_BUILD_COMMON OFF)' > .venv/llama_cpp.cmake
	CFLAGS="$(FLAGS)" CXXFLAGS="$(FLAGS)" \
		CMAKE_ARGS="-DLLAVA_BUILD=OFF -DMTMD_BUILD=OFF '-DCMAKE_PROJECT_llama_cpp_INCLUDE=$(CURDIR)/.venv/llama_cpp.cmake'" \
		$(BIN)/pip install $(QUIET) --no-cache-dir -e ".[gguf]"
	$(BIN)/pip install $(QUIET) -e ".[dev]"
	touch $@ .venv/demo

models: .venv/ready
	@for name in $(PULLED); do $(BIN)/outrider pull $$name || exit; done
	@for name in $(EXPORTED); do $(BIN)/outrider export $$name || exit; done

# Nothing is measured before the first answer but what it needs; `make models` measures the rest.
demo: .venv/demo
	@for name in $(PAIR); do echo "==> $$name"; $(BIN)/outrider export $$name --no-report || exit; done
	@echo "==> a verifier, and a device that drafts for it"
	@$(BIN)/python -m benchmarks.demo

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fast: .venv/ready
	$(BIN)/python -m pytest -n 3 -m "not weights and not slow and not browser"

test: check models fast browser
	$(BIN)/python -m pytest -m weights

# A Chromium from npm with all that it needs, without root; elsewhere than on Linux x86-64 set OUTRIDER_BROWSER to one.
.venv/chromium/ready: .venv/ready tests/browser/fetch.py edge_runtime/phone/fetch.py
	$(BIN)/python -m tests.browser.fetch .venv/chromium
	touch $@

# Each by the one version and hash that was reviewed; a wheel built after this has them.
edge_runtime/phone/app/lib: .venv/ready edge_runtime/phone/fetch.py
	$(BIN)/python -m edge_runtime.phone.fetch
	touch $@

phone: edge_runtime/phone/app/lib

browser: .venv/chromium/ready phone
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m browser

soak: .venv/ready
	$(BIN)/python -m pytest -m slow -s

wheel-test: .venv/ready
	$(BIN)/python -m pytest -m slow tests/test_install.py tests/deploy

ray: .venv/ready
	$(BIN)/pip install $(QUIET) -e ".[ray]"
	$(BIN)/python -m pytest -m ray

bench: models
	@$(BIN)/outrider export qwen2.5-coder-1.5b-q4_0
	@$(BIN)/outrider bench pair

peers: .venv/ready
	@$(BIN)/python -m benchmarks.peers --install
	$(BIN)/python -m pytest -m slow tests/benchmarks/test_peers.py

bench-service: models
	@$(BIN)/outrider bench service

bench-link: models
	@$(BIN)/outrider bench link

docs: .venv/ready
	@$(BIN)/python -m docs.reference

newcomer:
	@$(PYTHON) -m benchmarks.newcomer

clean:
	rm -rf .venv
