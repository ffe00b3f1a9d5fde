# make demo    from nothing to a Table-2-like table, set-up included
# make test    set-up if needed, linter, all tests
# make nets    writes prototxt/ and solvers/ anew
# make schema  compiles caffeproto/caffe.proto
# make clean   removes what the demo made; make distclean the set-up too

PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python
DEMO   := work/demo

.PHONY: demo test nets schema setup clean distclean
.DELETE_ON_ERROR:

demo: setup
	$(RUN) -m reproduce demo --out $(DEMO)

test: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pytest

nets: setup
	$(RUN) -m netgen.committed

schema: setup
	$(RUN) -m grpc_tools.protoc -I caffeproto --descriptor_set_out caffeproto/caffe.desc caffe.proto

# The stamp says for which pyproject.toml and interpreter the venv was made.
setup: $(VENV)/.ready
	@$(RUN) -m realcaffe install --quiet

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

clean:
	rm -rf work

distclean: clean
	rm -rf $(VENV)
