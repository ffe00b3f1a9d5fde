"""Everything the fuzzer was given or has found, once more."""

from __future__ import annotations

import pytest

from tests.conftest import ROOT
from tests.data_prep.fuzz import TARGETS

CORPUS = ROOT / "tests" / "corpus"


@pytest.mark.parametrize("target", TARGETS)
def test_corpus(target):
    inputs = sorted((CORPUS / target).iterdir())
    assert inputs
    for path in inputs:
        TARGETS[target](path.read_bytes())
