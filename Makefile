# make demo | make demo TASK=classification SEED=2 | make benchmark SEEDS="1 2 3" | make test | make test-slow | make install
# The same with the older MM libraries, in an environment of their own: make test-original, or any target with FAMILY=original.
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

# The rest of each family's versions is in setup.py.
ifeq ($(FAMILY),maintained)
VENV := .venv
TOO_NEW := 4.0
BUILD_TOOLS := "setuptools<82" wheel ninja psutil
TORCH := torch==2.11.0 torchvision==0.26.0
MMCV := onedl-mmcv==2.3.6
OPENCV := opencv-python-headless==4.12.0.88
EXTRAS := maintained,demo,dev
CHECKS := lint
else ifeq ($(FAMILY),original)
VENV := .venv-original
TOO_NEW := 3.12
BUILD_TOOLS := "setuptools<81" wheel ninja psutil
TORCH := torch==2.1.2 torchvision==0.16.2 "numpy<2"
# pip may have kept an mmcv that was built against another torch.
MMCV := --no-cache-dir mmcv==2.1.0
OPENCV := opencv-python-headless==4.11.0.86
EXTRAS := original,demo,test
CHECKS :=
else
$(error FAMILY is maintained or original, not '$(FAMILY)')
endif
BIN := $(VENV)/bin

.PHONY: help install demo benchmark docs test test-slow lint install-original test-original test-slow-original

help:
	@echo "make demo [TASK=all|classification|faster_rcnn|mask_rcnn|pspnet] [SEED=1]   train, distill, compare"
	@echo "make benchmark [SEEDS='1 2 3']                                              all digit configs, docs/benchmarks.md"
	@echo "make docs                                                                   the documentation, docs/_build/html"
	@echo "make test                                                                   checks and tests, about 8 minutes"
	@echo "make test-slow                                                              the long tests, every config among them, half an hour"
	@echo "make test-original, make test-slow-original                                  with the older MM libraries, in .venv-original"

install: $(VENV)/.installed

# In this order: mmcv builds from source against the torch that is there.
$(VENV)/.installed: setup.py
	$(PYTHON) -c "import sys; assert (3, 10) <= sys.version_info < tuple(map(int, '$(TOO_NEW)'.split('.'))), \
	    'Python 3.10 or newer, below $(TOO_NEW), is needed: make PYTHON=python3.11'"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip $(BUILD_TOOLS)
	$(BIN)/python -m pip install $(TORCH)
	@echo "Next, mmcv is built from source: about 9 minutes on 2 cores."
	$(BIN)/python -m pip install --no-build-isolation $(MMCV)
	$(BIN)/python -m pip install --no-build-isolation -e ".[$(EXTRAS)]"
	# The libraries pull in both builds of OpenCV over each other; the headless one needs no system libraries.
	$(BIN)/python -m pip uninstall --yes opencv-python opencv-python-headless
	$(BIN)/python -m pip install --no-deps $(OPENCV)
	touch $@

demo: install
	$(BIN)/python -W ignore tools/demo.py --task $(TASK) --seed $(SEED)

# The patterns are left to the command, which skips the configs that are no distillation.
benchmark: install
	$(BIN)/python tools/dataset_converters/digit_scenes.py data/digits
	$(BIN)/python -W ignore tools/compare_methods.py 'configs/*/*_digits.py' --seeds $(SEEDS) --report docs/benchmarks.md

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install --no-build-isolation -e ".[docs]"
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/mypy

test: install $(CHECKS)
	$(BIN)/python -m pytest tests -m "not slow" -n $(WORKERS) --dist loadfile

test-slow: install $(VENV)/.docs
	$(BIN)/python -m pytest tests -m slow -n $(WORKERS) --dist loadfile

install-original test-original test-slow-original: %-original:
	$(MAKE) FAMILY=original $*
