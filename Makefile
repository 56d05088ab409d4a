# make demo | make demo TASK=classification SEED=2 | make benchmark SEEDS="1 2 3" | make test | make test-slow | make install
# Any target in another environment: FAMILY=compiled, where mmcv's operators are compiled, or FAMILY=original, with the
# older MM libraries; make test-compiled and make test-original are short for two of them.
PYTHON ?= python3
FAMILY ?= maintained
TASK ?= all
SEED ?= 1
SEEDS ?= 1 2 3
# Test processes side by side; the tests of a file share what they set up.
WORKERS ?= 2
.DEFAULT_GOAL := help
# Waiting OpenMP threads sleep instead of spinning: with data workers next to them on few cores that is many times faster.
export OMP_WAIT_POLICY := passive

ifeq ($(FAMILY),maintained)
VENV := .venv
# The first Python without wheels of the NumPy that this OpenCV wants.
TOO_NEW := 3.14
# Built by itself, where no torch is seen, mmcv compiles nothing; one that was compiled for another torch is replaced.
MMCV := --no-deps --force-reinstall onedl-mmcv
MMCV_TAKES := without compiled operators: half a minute
COMPLETE := $(VENV)/bin/python -m mmfeatdistill.mmcv_ops install
EXTRAS := maintained,demo,dev
CHECKS := lint
else ifeq ($(FAMILY),compiled)
VENV := .venv-compiled
TOO_NEW := 3.14
# mmcv compiles against the torch that is there.
FIRST := setuptools wheel ninja psutil torch torchvision
BUILD := --no-build-isolation
MMCV := onedl-mmcv
MMCV_TAKES := compiled from source: about 10 minutes on 2 cores
EXTRAS := maintained,demo,test
else ifeq ($(FAMILY),original)
VENV := .venv-original
TOO_NEW := 3.12
FIRST := setuptools wheel ninja psutil torch torchvision numpy
BUILD := --no-build-isolation
MMCV := mmcv
MMCV_TAKES := compiled from source: about 10 minutes on 2 cores
EXTRAS := original,demo,test
else
$(error FAMILY is maintained, compiled or original, not '$(FAMILY)')
endif
BIN := $(VENV)/bin
CONSTRAINTS := requirements/constraints-$(FAMILY).txt
# Most of the modules are never imported: without their bytecode the installation takes two thirds of the time.
PIP := $(BIN)/python -m pip --disable-pip-version-check install --no-compile $(BUILD) --constraint $(CONSTRAINTS)

.PHONY: help install demo benchmark docs test test-slow lint
.PHONY: test-machines test-zoo install-compiled test-compiled test-slow-compiled
.PHONY: install-original test-original test-slow-original

help:
	@echo "make demo [TASK=all|classification|faster_rcnn|mask_rcnn|pspnet] [SEED=1]   train, distill, compare"
	@echo "make benchmark [SEEDS='1 2 3']                                              all digit configs, docs/benchmarks.md"
	@echo "make docs                                                                   the documentation, docs/_build/html"
	@echo "make test                                                                   checks and tests, about 10 minutes"
	@echo "make test-slow                                                              the long tests, one config of each method and dataset among them"
	@echo "make test-zoo                                                               two iterations of all other configs, half an hour"
	@echo "make test-machines                                                          several hosts, a cluster, faults of disks, half an hour; as root"
	@echo "make install                                                                what all of these begin with, in .venv, about 3 minutes"
	@echo "make test-compiled, make test-slow-compiled, make install-compiled          with mmcv's operators compiled, in .venv-compiled"
	@echo "make test-original, make test-slow-original, make install-original          with the older MM libraries, in .venv-original"

install: $(VENV)/.installed

# mmcv comes without pip's cache, which may hold one that was built in another way. Debugging symbols double its time.
$(VENV)/.installed: setup.py $(CONSTRAINTS)
	@$(PYTHON) -c "import sys; assert (3, 10) <= sys.version_info < tuple(map(int, '$(TOO_NEW)'.split('.'))), \
	    'Python 3.10 or newer, below $(TOO_NEW), is needed: make PYTHON=python3.11'"
	@echo "== Installing into $(VENV), with the versions of $(CONSTRAINTS)."
	$(PYTHON) -m venv $(VENV)
ifdef FIRST
	@echo "== PyTorch, 5 GB on disk: about 2 minutes, half of them after 'Installing collected packages'."
	$(PIP) $(FIRST)
endif
	@echo "== mmcv, $(MMCV_TAKES)."
	CFLAGS="-O3 -g0" $(PIP) --no-cache-dir $(MMCV)
	@echo "== The other libraries$(if $(FIRST),, and PyTorch, 5 GB on disk: about 2 minutes, half of them after 'Installing collected packages')."
	$(PIP) -e ".[$(EXTRAS)]"
	@echo "== OpenCV once: the libraries ask for two builds that overwrite each other; the headless one needs no system libraries."
	$(BIN)/python -m pip uninstall --quiet --yes opencv-python opencv-python-headless
	$(PIP) --no-deps opencv-python-headless
	$(if $(COMPLETE),@echo "== mmcv is completed by operators of torchvision and plain PyTorch.")
	$(COMPLETE)
	@touch $@
	@echo "== Installed: source $(BIN)/activate"

demo: install
	@echo "== The demo: loading the libraries takes half a minute before the first line."
	$(BIN)/python -W ignore tools/demo.py --task $(TASK) --seed $(SEED)

# The patterns are left to the command, which skips the configs that are no distillation.
benchmark: install
	$(BIN)/python tools/dataset_converters/digit_scenes.py data/digits
	$(BIN)/python -W ignore tools/compare_methods.py 'configs/*/*_digits.py' --seeds $(SEEDS) --report docs/benchmarks.md

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

$(VENV)/.docs: $(VENV)/.installed
	$(PIP) -e ".[docs,loggers,mim]"
	@touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/mypy

test: install $(CHECKS)
	$(BIN)/python -m pytest tests -m "not slow and not machines" -n $(WORKERS) --dist loadfile

test-slow: install $(VENV)/.docs
	$(BIN)/python -m pytest tests -m "slow and not machines and not zoo" -n $(WORKERS) --dist loadfile

test-zoo: install
	$(BIN)/python -m pytest tests -m zoo -n $(WORKERS)

# As root, on Linux: hosts are namespaces of the kernel. One after the other, as each takes ports and the whole processor.
test-machines: install
	$(BIN)/python -m pytest tests/machines -m machines

install-compiled test-compiled test-slow-compiled: %-compiled:
	$(MAKE) FAMILY=compiled $*

install-original test-original test-slow-original: %-original:
	$(MAKE) FAMILY=original $*
