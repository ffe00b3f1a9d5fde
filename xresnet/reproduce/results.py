"""The results that commands write as JSON, and their shapes.

RUN/result.json    a finished run (reproduce.run); a packed net has one, too
OUT/grid.json      all results of a grid (reproduce.grid)
OUT/table2.json    Table 2 (reproduce.table2)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xresnet.basics import shapes
from xresnet.basics.cli import UserError
from xresnet.reproduce.accuracy import METRICS
from xresnet.reproduce.kept import FACTS

RESULT = {"key?": str, "sha256?": {str: str}}
OF_GRID = {  # a run's result in grid.json
    **RESULT,
    "row": str,
    "seed": int,
    "params": int,
    "outputs": {str: float},
    "train?": {str: {str: float}},
    "plan?": str,
}
SHOWN = {"name": str, "iterations": int, "sha256": {str: str}, "commands": [str]}  # by `report`
_SPREAD = {"mean": float, "sd": (float, None), "values?": [float]}
GRID = {
    "name": str,
    "what": str,
    "runs": int,
    "finished": int,
    "rows": [
        {
            "name": str,
            "params": (float, None),
            "n": int,
            "tasks": {str: dict.fromkeys(METRICS, _SPREAD)},
        }
    ],
    "results": [OF_GRID],
}
TABLE = {
    "table": [
        {
            "row": str,
            "task": str,
            "shared": bool,
            "params": (float, None),
            "paper_params": (float, None),
            **{f"{metric}{part}": float for metric in METRICS for part in ("", "_difference")},
            **{f"paper_{metric}": float for metric in METRICS},
            **{f"{metric}_{end}?": float for metric in METRICS for end in ("low", "high")},
        }
    ],
    "setting": {"name": str, "what": str},
    "data": FACTS,
    "runs": [SHOWN],
    "engine?": str,
    "versions": dict,
}


def find(path: Path, shape: Any) -> Any:
    """The JSON of a file in that shape; None where there is no such file.

    Raises:
        UserError: the file is damaged.
    """
    return shapes.read(path, shape) if path.exists() else None


def read_grid(path: Path) -> dict[str, Any]:
    """What a grid.json holds.

    Raises:
        UserError: no such file, or it is not a grid.json.
    """
    try:
        return shapes.read(path, GRID)
    except UserError as error:
        raise UserError(f"{error}: not a grid.json that `xresnet grid` wrote") from error


def find_result(run: Path) -> dict[str, Any] | None:
    """The result in a run's folder; None where there is none, or a damaged one to make again."""
    try:
        return find(run / "result.json", RESULT)
    except UserError:
        return None
