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

demo: setup $(DEMO)/vso/ontology.txt
	$(RUN) -m data_prep filter --ontology $(DEMO)/vso/ontology.txt --images $(DEMO)/vso \
	  --min-images 50 --out $(DEMO)/data
	$(RUN) -m data_prep split --images $(DEMO)/vso --out $(DEMO)/data
	$(RUN) -m data_prep lmdb --images $(DEMO)/vso --size 64 --out $(DEMO)/data
	$(RUN) -m reproduce table2 --smoke --data $(DEMO)/data --out $(DEMO)

$(DEMO)/vso/ontology.txt: | setup
	$(RUN) -m data_prep sample --out $(DEMO)/vso

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
