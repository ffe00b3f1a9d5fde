"""Fuzzing of everything that reads somebody else's bytes.

    pip install atheris
    python -m tests.data_prep.fuzz ontology -max_total_time=600 NEW_INPUTS tests/corpus/ontology

Each target takes any bytes and must either read them or refuse them the way
it promises; any other exception is a finding. The corpus is replayed by
test_data_prep_fuzz.py in every test run.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

from data_prep import ontology
from data_prep.classes import Classes, parse_names
from data_prep.criteria import parse_excluded
from data_prep.lists import parse_list
from data_prep.urls import parse_urls
from xresnet.basics.cli import UserError
from xresnet.caffeproto.datum import parse_datum

CLASSES = Classes.of(["dark_moon", "tiny_star"])


def fuzz_ontology(data: bytes) -> None:
    text = data.decode(errors="replace")
    try:
        anps = ontology.parse(text, "file")
    except UserError as error:
        assert str(error).startswith("file:") and "\n" not in str(error)
        return
    assert len({anp.name for anp in anps}) == len(anps)
    for anp in anps:
        assert anp.adjective and anp.noun and anp.name == f"{anp.adjective}_{anp.noun}"


def fuzz_lists(data: bytes) -> None:
    text = data.decode(errors="replace")
    try:
        entries = parse_list(text, CLASSES, "file")
    except UserError as error:
        assert str(error).startswith("file:") and "\n" not in str(error)
        return
    for path, label in entries:
        assert 0 <= label < 2 and ".." not in path.split("/") and not path.startswith("/")
    assert parse_list("".join(f"{p} {n}\n" for p, n in entries), CLASSES, "file") == entries


def fuzz_labels(data: bytes) -> None:
    parts = data.decode(errors="replace").split("\0")
    with contextlib.suppress(UserError):
        parse_excluded(parts[0], "file")
    try:
        lists = [parse_names(part, "file", words=True) for part in [*parts, "", ""][:3]]
        classes = Classes.vso(*lists)
    except UserError:
        return
    assert len(classes.combinations) == len(classes.anp)


def fuzz_urls(data: bytes) -> None:
    lines = data.decode(errors="replace").split("\n")
    try:
        for url in parse_urls(lines, "file", "dark_moon"):
            assert ontology.is_name(url.anp) and url.url.lower().startswith("http")
    except UserError as error:
        assert str(error).startswith("file:") and "\n" not in str(error)


def fuzz_datum(data: bytes) -> None:
    try:
        datum = parse_datum(data)
    except ValueError:
        return
    assert len(datum.data) <= len(data) and len(datum.float_data) * 4 <= len(data)


TARGETS: dict[str, Callable[[bytes], None]] = {
    name[len("fuzz_") :]: target
    for name, target in list(globals().items())
    if name.startswith("fuzz_")
}


def main() -> None:
    import atheris

    target = TARGETS[sys.argv.pop(1)]
    atheris.instrument_all()
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
