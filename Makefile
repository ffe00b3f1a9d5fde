# X-ResNet in Caffe. Bare `make` prints this.
#
#   make demo         from nothing to a table like Table 2, set-up included
#   make test         set-up if needed, linter, types, all tests; CAFFE=DIR: with DIR/bin's Caffe
#   make setup        the environment in .venv, with real Caffe in it
#
#   make test-engine  fetches PyTorch's CPU build, then tests torchcaffe/
#   make ci           `make test` and `make test-engine`; fails if a test is skipped for want of
#                     anything that pip can bring
#   make nets         writes prototxt/, solvers/ and docs/NETWORKS.md anew
#   make results      writes docs/RESULTS.md's tables and pictures anew, from docs/results/
#   make schema       compiles xresnet/caffeproto/caffe.proto
#   make demo-picture takes README's pictures of the demo's report (needs Chromium)
#   make claims       where each figure in README and docs/ comes from; makes the cheap ones anew
#   make site         docs/ as a site with search, in work/site
#   make dist         the wheel and the source archive, in dist/
#   make caffe-cpu caffe-cuda
#                     builds Caffe from Debian's source, into work/ (docs/DOCKER.md)
#   make docker-pin   prints the digest to pin the images' base by
#   make clean        removes what the demo made; make distclean the set-up too

PYTHON ?= python3
# A Caffe on PATH is taken where an environment has none of its own: so another one.
ifdef CAFFE
VENV   := work/venv-caffe
export PATH := $(abspath $(CAFFE))/bin:$(PATH)
else
VENV   := .venv
endif
RUN    := $(VENV)/bin/python
DEMO   := work/demo
# A process a core, each with files of its own, whose fixtures then come once.
SIDE_BY_SIDE := --numprocesses auto --maxprocesses 4 --dist loadfile
# From Python 3.11 on: what older ones can have of NumPy and mypy tells other types.
TYPES := $(RUN) -c 'import sys; sys.exit(sys.version_info >= (3, 11))' || $(RUN) -m mypy

.DEFAULT_GOAL := help
.PHONY: help demo demo-picture test ci test-engine nets results claims schema setup site dist caffe-cpu caffe-cuda docker-pin clean distclean
.DELETE_ON_ERROR:

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST))

demo: setup $(DEMO)/vso/ontology.txt
	$(RUN) -m data_prep filter --ontology $(DEMO)/vso/ontology.txt --images $(DEMO)/vso \
	  --min-images 50 --out $(DEMO)/data
	$(RUN) -m data_prep split --images $(DEMO)/vso --out $(DEMO)/data
	$(RUN) -m data_prep lmdb --images $(DEMO)/vso --size 64 --out $(DEMO)/data
	$(RUN) -m xresnet table2 --smoke --data $(DEMO)/data --out $(DEMO)
	@echo 'writing the report, to open in a browser:' && $(RUN) -m xresnet report $(DEMO)

$(DEMO)/vso/ontology.txt: | setup
	$(RUN) -m data_prep sample --out $(DEMO)/vso

test: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(TYPES)
	$(RUN) -m pytest $(SIDE_BY_SIDE)

# All tests, PyTorch's fetched first, and a test that is skipped fails unless what it lacks
# cannot be had by pip (tests/conftest.py): what continuous integration runs.
ci: setup
	$(RUN) tests/get_torch.py
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(TYPES)
	$(RUN) -m pytest $(SIDE_BY_SIDE) --strict-skips

# With PyTorch, which `make test` does not fetch: from then on it tests the engine too.
test-engine: setup
	$(RUN) tests/get_torch.py
	$(RUN) -m pytest tests/torchcaffe tests/reproduce/test_torch.py

nets: setup
	$(RUN) docs/networks.py

results: setup
	$(RUN) docs/results.py

demo-picture: $(DEMO)/report.html
	$(RUN) docs/demo.py

$(DEMO)/report.html:
	$(MAKE) demo

claims: setup
	$(RUN) -m bench.claims

schema: setup
	$(RUN) -m grpc_tools.protoc -I xresnet/caffeproto --descriptor_set_out xresnet/caffeproto/caffe.desc caffe.proto

# For developers, on Debian 12: what the Dockerfile runs. First, as root:
# docker/apt.sh install docker/apt-build.txt
caffe-cpu:
	TESTS=1 docker/build.sh cpu $$($(PYTHON) docker/fetch.py work/source) work/caffe-cpu

work/cuda/bin/nvcc: docker/nvidia.txt
	docker/toolkit.sh $(CURDIR)/work/cuda

caffe-cuda: work/cuda/bin/nvcc
	CUDA_HOME=$(CURDIR)/work/cuda \
	  docker/build.sh cuda $$($(PYTHON) docker/fetch.py work/source) work/caffe-cuda

# Without the generator's word on its own future, which no reader of a log needs.
site: setup
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet
	@echo 'open work/site/index.html in a browser; its search works once the site is served:'
	@echo '$(RUN) -m http.server --bind localhost --directory work/site'

dist: setup
	$(RUN) -m build

BASE := $(shell sed -n 's/^ARG DEBIAN=//p' Dockerfile)
docker-pin:
	@docker/digest.sh $(BASE)

# The stamp says for which pyproject.toml the venv was filled. A venv that works keeps its
# Python: another one laid over it would mix two standard libraries.
setup: $(VENV)/.ready
	@$(RUN) -m xresnet.realcaffe install --quiet

$(VENV)/.ready: pyproject.toml
	@$(RUN) -c 'import ssl' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@echo 'installing Python packages into $(VENV), 1.2 GB: some minutes the first time'
	@$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

clean:
	rm -rf work

distclean: clean
	rm -rf $(VENV)
