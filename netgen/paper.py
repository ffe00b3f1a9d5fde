"""The paper's Table 2, from the one file that holds its figures (paper.json)."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any


@lru_cache(maxsize=1)
def paper() -> dict[str, Any]:
    """All of paper.json: `tasks` in the table's order, `table2` row by row."""
    return json.loads(Path(__file__).with_name("paper.json").read_text(encoding="utf-8"))


def row(net: str) -> dict[str, Any] | None:
    """The row of the net that `python -m netgen` calls `net`; None if the paper has none."""
    return next((row for row in paper()["table2"] if row["net"] == net), None)


def params(net: str, task: str | None = None) -> float | None:
    """Table 2's parameters in millions, of `task`'s net where there is one a task."""
    found = row(net)
    return found["params"].get(task or "all") if found else None
