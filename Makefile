# Two commands: `make demo` runs the main job, `make test` every check. Each sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test setup format clean

setup: $(READY)

# --without-pip: Debian's python3 has no ensurepip; pip installs itself from outside.
# torch comes first and pinned: letting another package choose it pulls gigabytes of GPU libraries.
$(READY): pyproject.toml constraints-dev.txt
	@echo "Setting up $(VENV) (a few minutes the first time, nothing afterwards)"
	@$(PYTHON) -m venv --without-pip $(VENV)
	@$(PYTHON) -m pip --python $(BIN)/python install -qq -c constraints-dev.txt pip setuptools
	@$(BIN)/python -m pip install -qq -c constraints-dev.txt torch==2.13.0
	@$(BIN)/python -m pip install -qq -c constraints-dev.txt --no-build-isolation -e '.[torch,onnx,sklearn,plot,ray,devices,keras,postgres,dev]'
	@touch $@

demo: $(READY)
	@$(BIN)/luthier compress examples/digits.py --budget latency=0.5 --trials 24 --workers 2 --out runs/digits

test: $(READY)
	@BIN=$(BIN) ./scripts/check

format: $(READY)
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .cache runs
