# Everything from a fresh clone: a virtual environment of its own in .venv, the wheel, the tests, the quickstart.
# Needed beforehand: Python 3.11 or newer with its headers and venv, g++ and make; nvcc is used where it is found.
#
#   make quickstart                     train a model on MovieLens and show what it learned
#   make test ARGS="-k embedding_bag"   run the tests, or some of them
#   make docs                           build the documentation's pages into build/site
#   make test-slow                      run those that take longer than a change can wait for
#   make sanitize | sanitize-cuda       run the kernels under AddressSanitizer and UBSan; under compute-sanitizer
#   make sanitize-package               run the package beneath TensorFlow under AddressSanitizer
#   make build MERLIN_CUDA=OFF          build for this machine and install into .venv
#   make wheel                          build a wheel for others into dist/, for all GPU architectures
#   make lint | format | bench | instruction-counts | cuda-check | clean | distclean

PYTHON ?= python3
# AUTO builds the CUDA kernels if nvcc is found, ON insists on them, OFF leaves them out.
MERLIN_CUDA ?= AUTO
# Semicolon-separated, such as 80;90. Empty: for `wheel` what CMakeLists.txt has, else those of this machine's GPUs, or the
# newest alone where there is none, so that the code is compiled but nobody waits for what cannot run here.
MERLIN_CUDA_ARCHITECTURES ?=
OUTPUT ?= quickstart_output
# Processes that run tests side by side; each needs about 3 GB. 0: in this one.
WORKERS ?= 2
ARGS ?=
# A process of the tests' that dies is a failure and the end; xdist would start another, and with --dist loadfile wait for it for ever.
XDIST := -n $(WORKERS) --max-worker-restart 0

VENV := .venv
PY := $(VENV)/bin/python
STAMPS := $(VENV)/stamps
BASE := build project cpu nvtabular quickstart
# NVTabular 23.8 needs both from dask releases of 2024 on; older ones ignore them.
export DASK_DATAFRAME__QUERY_PLANNING := False
export DASK_DATAFRAME__CONVERT_STRING := False
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: build wheel test test-slow sanitize sanitize-package sanitize-cuda quickstart docs lint format bench instruction-counts cuda-check clean distclean FORCE
.DELETE_ON_ERROR:

build: $(STAMPS)/package

quickstart: $(STAMPS)/package
	$(PY) examples/quickstart.py --output $(OUTPUT) $(ARGS)

test: $(STAMPS)/package $(STAMPS)/dev
	$(PY) -m pytest $(XDIST) --dist loadfile $(ARGS)

# Faults, abuse and hypothesis at length: docs/reliability.md.
test-slow: $(STAMPS)/package $(STAMPS)/dev
	$(PY) -m pytest $(XDIST) --dist load --slow -m slow $(ARGS)

# The CPU kernels, compiled anew with AddressSanitizer and UndefinedBehaviorSanitizer, for every instruction set here.
sanitize: $(STAMPS)/package $(STAMPS)/dev
	$(PY) -m pytest $(XDIST) tests/csrc/test_sanitizers.py $(ARGS)

# The CUDA kernels through merlin_models._C: accesses out of bounds and uninitialized, then races in shared memory.
sanitize-cuda: $(STAMPS)/package $(STAMPS)/dev
	@command -v compute-sanitizer > /dev/null || { echo "sanitize-cuda: compute-sanitizer, a part of the CUDA toolkit, is not on PATH"; exit 1; }
	@nvidia-smi -L > /dev/null 2>&1 || { echo "sanitize-cuda: needs a GPU, and nvidia-smi finds none"; exit 1; }
	for tool in memcheck racecheck; do \
	  compute-sanitizer --tool $$tool --target-processes all --error-exitcode 1 \
	    $(PY) -m pytest -m gpu $(wildcard tests/ops/test_*_native.py) $(ARGS) || exit 1; done

# The whole package on a CPU, its Python module and its TensorFlow ops too. TensorFlow is as it is, but all memory goes through
# AddressSanitizer's malloc, Python's as well. Minutes to build, half an hour to run; ARGS may name tests.
SANITIZED := $(CURDIR)/build/sanitized
SANITIZED_TESTS := $(addprefix tests/,ops layers optimizers losses samplers blocks models)
sanitize-package: $(STAMPS)/dev
	rm -rf $(SANITIZED)/wheel $(SANITIZED)/site
	$(PIP_WHEEL) -C build-dir=$(SANITIZED)/cmake -C cmake.define.MERLIN_CUDA=OFF \
	  -C "cmake.define.CMAKE_CXX_FLAGS=-fsanitize=address -fno-omit-frame-pointer -O1 -g1" --wheel-dir $(SANITIZED)/wheel
	$(PY) -m pip install -qq --no-deps --no-index --target $(SANITIZED)/site $(SANITIZED)/wheel/*.whl
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
	  ASAN_OPTIONS=detect_leaks=0:detect_odr_violation=0:abort_on_error=1 PYTHONMALLOC=malloc PYTHONPATH=$(SANITIZED)/site \
	  $(PY) -m pytest $(XDIST) --dist loadfile $(or $(ARGS),$(SANITIZED_TESTS))

bench: $(STAMPS)/package $(STAMPS)/dev
	$(PY) -m benchmarks.run $(or $(ARGS),embedding_bag --cases smoke --mode forward,full,update)

# What tests/csrc/test_instruction_counts.py compares with; needs valgrind.
instruction-counts: $(STAMPS)/package $(STAMPS)/dev
	$(PY) -m benchmarks.instruction_counts --update

# --- the environment ---------------------------------------------------------------------------------------------

$(STAMPS)/venv: requirements/build-tools.txt
	@$(PYTHON) requirements/check_machine.py
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -qq --upgrade -r requirements/build-tools.txt
	@mkdir -p $(STAMPS) && touch $@

# One resolution for build, package and examples, so that nothing is installed and then replaced.
$(STAMPS)/base: $(STAMPS)/venv pyproject.toml requirements/nvtabular-py312.txt
	$(PY) requirements/from_pyproject.py $(BASE) > $@.txt
	$(PY) -m pip install -qq -r $@.txt
	if $(PY) -c 'import sys; sys.exit(sys.version_info < (3, 12))'; then \
	  $(PY) -m pip install -qq --no-deps -r requirements/nvtabular-py312.txt; fi
	@touch $@

$(STAMPS)/dev: $(STAMPS)/base
	$(PY) requirements/from_pyproject.py $(BASE) dev > $@.txt
	$(PY) -m pip install -qq -r $@.txt
	@touch $@

$(STAMPS)/lint: $(STAMPS)/venv requirements/lint.txt
	$(PY) -m pip install -qq -r requirements/lint.txt
	@touch $@

$(STAMPS)/docs: $(STAMPS)/venv pyproject.toml
	$(PY) requirements/from_pyproject.py docs > $@.txt
	$(PY) -m pip install -qq -r $@.txt
	@touch $@

# --- the wheel ---------------------------------------------------------------------------------------------------

SOURCES := pyproject.toml CMakeLists.txt README.md LICENSE \
  $(shell find cmake csrc merlin_models merlin_standard_lib -type f -not -path '*/.*' -not -name '*.so' -not -name '*.pyc' \
    -not -name _build_info.py)
GPUS = $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2> /dev/null | grep -E '^[0-9]+\.[0-9]+$$' | tr -d . | sort -u | paste -sd ';')
HERE := $(or $(MERLIN_CUDA_ARCHITECTURES),$(GPUS),90)
PIP_WHEEL = PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) -m pip wheel -qq --no-build-isolation --no-deps .
OPTIONS = -C cmake.define.MERLIN_CUDA=$(MERLIN_CUDA) -C "cmake.define.MERLIN_CUDA_ARCHITECTURES=$(HERE)"

# Changes only when the options do; CMake must then forget the ones before.
$(STAMPS)/options: $(STAMPS)/venv FORCE
	@echo '$(OPTIONS)' | cmp --silent - $@ || { rm -rf build/here/cmake/CMakeCache.txt; echo '$(OPTIONS)' > $@; }

$(STAMPS)/package: $(STAMPS)/base $(STAMPS)/options $(SOURCES)
	rm -rf build/here/wheel
	$(PIP_WHEEL) -C build-dir=build/here/cmake $(OPTIONS) --wheel-dir build/here/wheel
	$(PY) -m pip install -qq --no-deps --no-index --force-reinstall build/here/wheel/*.whl
	@touch $@

wheel: $(STAMPS)/base
	rm -rf dist build/wheel
	$(PIP_WHEEL) -C build-dir=build/wheel -C cmake.define.MERLIN_CUDA=$(MERLIN_CUDA) \
	  $(if $(MERLIN_CUDA_ARCHITECTURES),-C "cmake.define.MERLIN_CUDA_ARCHITECTURES=$(MERLIN_CUDA_ARCHITECTURES)") \
	  --wheel-dir dist

# Compiles the CUDA code for one architecture, and checks that no symbol of the CUDA runtime is left for
# TensorFlow's own copy to answer.
cuda-check: $(STAMPS)/base
	@command -v nvcc > /dev/null || { echo "cuda-check: nvcc is not on PATH"; exit 1; }
	rm -rf build/cuda-check/wheel
	$(PIP_WHEEL) -C build-dir=build/cuda-check/cmake -C cmake.define.MERLIN_CUDA=ON \
	  -C cmake.define.MERLIN_CUDA_ARCHITECTURES=90 --wheel-dir build/cuda-check/wheel
	$(PY) -m zipfile -e build/cuda-check/wheel/*.whl build/cuda-check/wheel/unpacked
	! nm -D --undefined-only build/cuda-check/wheel/unpacked/merlin_models/*.so | grep -i ' cuda'

# --- style -------------------------------------------------------------------------------------------------------

CXX_SOURCES = $$(find csrc benchmarks tests -name '*.h' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh' -o -name '*.inc')

lint: $(STAMPS)/lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/clang-format --dry-run --Werror $(CXX_SOURCES)

format: $(STAMPS)/lint
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/clang-format -i $(CXX_SOURCES)

# --- pages -------------------------------------------------------------------------------------------------------

.PHONY: docs
# Reads the sources and needs no build of them. A link that leads nowhere is an error.
docs: $(STAMPS)/docs
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict
	@echo "build/site/index.html; with its search: $(PY) -m http.server --directory build/site"

clean:
	rm -rf build dist quickstart_output dlrm_criteo_output .pytest_cache .ruff_cache .hypothesis $(STAMPS)/package

distclean: clean
	rm -rf $(VENV)
