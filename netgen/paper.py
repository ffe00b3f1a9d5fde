"""The paper's Table 2, from paper.json."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any


@lru_cache(maxsize=1)
def paper() -> dict[str, Any]:
    """The contents of paper.json: `tasks` in the table's order, and the rows of `table2`."""
    return json.loads(Path(__file__).with_name("paper.json").read_text(encoding="utf-8"))


def row(net: str) -> dict[str, Any] | None:
    """The row of a net of the catalogue; None if the table has none."""
    return next((row for row in paper()["table2"] if row["net"] == net), None)


def params(net: str, task: str | None = None) -> float | None:
    """A net's parameters in millions, of `task` if it is a single-task net; None without a row."""
    found = row(net)
    return found["params"].get(task or "all") if found else None
