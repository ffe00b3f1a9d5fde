"""The drawn set is the one that README's demo table was made with."""

from __future__ import annotations

import hashlib

import pytest

from data_prep import sample
from data_prep.drawing import render

MEANS = {  # blue, green, red of an ANP's first picture: each noun and each adjective once
    "bright_heart": (221.05, 196.55, 178.09),
    "blurry_house": (101.86, 83.85, 102.18),
    "striped_star": (107.56, 105.29, 126.55),
    "dotted_tree": (95.06, 99.44, 122.30),
    "tiny_boat": (61.87, 112.06, 77.49),
    "dark_moon": (31.84, 28.72, 33.70),
    "bright_fish": (229.00, 201.42, 210.45),
    "dark_loss": (22.22, 20.69, 28.78),
    "lonely_tree": (135.63, 140.16, 143.07),
    "tiny_face": (109.35, 83.54, 124.67),
}


def test_every_picture_is_what_it_was():
    """Processors differ by a rounding here and there, which leaves the means as they are."""
    assert {anp.partition("_")[2] for anp in MEANS} == {
        anp.partition("_")[2] for anp in sample.counts(1)
    }
    for anp, mean in MEANS.items():
        assert tuple(render(anp, 0).mean(axis=(0, 1))) == pytest.approx(mean, abs=0.05), anp


def test_the_ontology_is_what_it_was():
    text = sample.ontology(sample.counts(60))
    assert hashlib.sha256(text.encode()).hexdigest() == (
        "3911e5834ae59c2750434650af3d72e0634ef107af9b085d92cca3b30603ed38"
    )
