"""A small drawn image set in VSO's layout, to try all steps without a download.

Nouns are shapes and adjectives visible properties, so that a small network learns all three tasks
in a minute on a CPU. A few more ANPs fail each criterion of `filter`: an adjective with two nouns,
an excluded noun of either kind, and an ANP with too few images despite many search hits.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.drawing import SIZE, jpeg, render, rng
from data_prep.folder import DataFolder, versions
from data_prep.parallel import default_threads, ordered
from xresnet.basics import bars
from xresnet.basics.cli import UserError
from xresnet.basics.files import PathLike, write, write_json
from xresnet.basics.numbers import SEED, at_least

FOLDER = "bi_concepts"
PER_ANP = at_least(1, "a number of images", most=10_000)

ADJECTIVES = {
    "dark": -0.6,
    "bright": 1.2,
    "blurry": -0.4,
    "striped": 0.3,
    "dotted": 0.5,
    "tiny": 0.8,
}  # with a sentiment each, as the ontology has
NOUNS = ("star", "heart", "house", "tree", "boat", "moon")
_FISH = ("bright_fish", "dark_fish", "striped_fish")  # a noun that not every adjective has
_FEW = ("dotted_fish",)  # fails criterion 3
_FAILING = {  # fail criteria 1 and 2
    "lonely_boat": -1.1,
    "lonely_tree": -1.0,
    "bright_face": 1.6,
    "dark_face": -0.9,
    "tiny_face": 1.1,
    "dark_loss": -1.8,
}


def counts(per_anp: int) -> dict[str, int]:
    """ANP -> number of images: `per_anp`, and an eighth of it for the rare one."""
    full = [f"{adjective}_{noun}" for adjective in ADJECTIVES for noun in NOUNS]
    few = max(1, per_anp // 8)
    return {
        anp: few if anp in _FEW else per_anp for anp in sorted([*full, *_FISH, *_FEW, *_FAILING])
    }


@dataclass(frozen=True)
class Sample:
    """A drawn image set; `facts`: the contents of its sample.json."""

    root: Path
    facts: dict[str, Any]


def make(out: PathLike, *, per_anp: int = 60, seed: int = 0, threads: int | None = None) -> Sample:
    """Draw the set into `out/bi_concepts` and describe it in `out/ontology.txt`.

    The same arguments and the same version of OpenCV give the same bytes. A set that an earlier
    `make` drew there is replaced when the new one is complete.

    Args:
        out: the folder for `bi_concepts` and `ontology.txt`.
        per_anp: images per ANP (an eighth of it for the rare one), 96 x 96 pixels each.
        seed: another seed gives other images.
        threads: drawing threads; the number of usable cores plus one by default.

    Raises:
        UserError: `out/bi_concepts` was not made by `make`, another `make` is running there, or
            `out` cannot be written.
    """
    PER_ANP.check(per_anp, "per_anp")
    SEED.check(seed, "seed")
    with DataFolder(out).lock():
        return Sample(Path(out), _make(Path(out), per_anp, seed, threads or default_threads()))


def _make(out: Path, per_anp: int, seed: int, threads: int) -> dict[str, Any]:
    final, aside, note = out / FOLDER, out / f".{FOLDER}.partial", out / "sample.json"
    if final.exists() and not note.exists():
        raise UserError(f"{final} was not made by `sample` and is left alone; choose another --out")
    wanted = counts(per_anp)
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()  # fails if a link has its name
        for anp in wanted:
            (aside / anp).mkdir()
        tasks = [(anp, i) for anp, n in wanted.items() for i in range(n)]

        def draw(task: tuple[str, int]) -> None:
            anp, i = task
            (aside / anp / f"{i + 1:05d}.jpg").write_bytes(jpeg(render(anp, i, seed)))

        drawn = ordered(draw, tasks, threads)
        for _ in bars.bar(drawn, "sample", len(tasks), unit="img"):
            pass
        summary = {
            "anps": len(wanted),
            "images": len(tasks),
            "per_anp": per_anp,
            "seed": seed,
            "size": SIZE,
            "versions": versions(),
        }
        write(out / "ontology.txt", ontology(wanted, seed))
        write_json(note, summary)  # before the folder gets its name, which it marks as ours
        if final.exists():
            shutil.rmtree(final)
        aside.rename(final)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return summary


def ontology(wanted: dict[str, int], seed: int = 0) -> str:
    """The set's ontology in the format of VSO's 3,244 list, with invented search hits."""
    hits = {anp: int(rng(seed, anp, "hits").randint(600, 90_000)) for anp in wanted}
    lines = [
        "A drawn sample set in the format of the Visual Sentiment Ontology's list. As there, the "
        "image numbers are search hits (here made up), not images on disk.",
        "",
        "",
    ]
    adjectives: dict[str, list[str]] = {}
    for anp in wanted:
        adjectives.setdefault(anp.partition("_")[0], []).append(anp)

    totals = {adjective: sum(map(hits.__getitem__, anps)) for adjective, anps in adjectives.items()}
    for number, adjective in enumerate(sorted(totals, key=totals.__getitem__, reverse=True), 1):
        sentiment = ADJECTIVES.get(adjective, -1.0)
        lines.append(
            f"{number}. {adjective} [sentiment: {sentiment:.2f}] [#images: {totals[adjective]:,}]"
        )
        for anp in sorted(adjectives[adjective], key=hits.__getitem__, reverse=True):
            lines.append(
                f"\t{anp} [sentiment: {_FAILING.get(anp, sentiment):.2f}] [#imgs: {hits[anp]:,}]"
            )
    return "\n".join(lines) + "\n"
