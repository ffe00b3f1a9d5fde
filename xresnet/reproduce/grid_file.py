"""Grid files: nets and seeds, how they are trained, and which are compared.

    {"name": "...", "what": "...",
     "net": ["--width", "8", ...],         netgen's arguments, of all rows
     "solver": ["--display", ...],         netgen's solver arguments, of all rows (optional)
     "plateau": {"lr": 0.02, ...},         reproduce.schedule.Plateau's fields; or
     "stages": [{"lr": 0.02, "epochs": 7}, {"lr": 0.002, "epochs": 3}],     the same for all
     "shuffle": true,                      a seed is an order of the training images, too
     "seeds": [1, 2, 3],                   of rows that name none (default: 1)
     "weights": ["FILE", ...],             initial .caffemodels, of all rows; or ["imagenet"]:
     "branch_init": "fold", "bn_epsilon": 1e-5,     how those are made (all optional)
     "rows": [{"name": "XS", "net": ["xs_resnet50"]}, ...],
     "arms", "primary", "exploratory": what reproduce.compare compares (optional)}

A row may have its own `seeds`, `solver`, `weights`, `branch_init` and `data` (a folder beside that
of --data); its options of net and solver override the grid's. As Caffe reads a database in its
order, `shuffle` makes a data folder for each seed, OUT/data/order-SEED (data_prep.reorder), on
which either engine trains.

`"like": "NAME"` starts from the grid file NAME.json beside this one: a key given here replaces
that file's, and the arguments of `net` are added to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from netgen import Network
from netgen.weights.plan import BRANCH_INITS
from xresnet.basics import shapes
from xresnet.basics.cli import UserError, check_known
from xresnet.basics.numbers import COUNT, POSITIVE, RATE, SEED
from xresnet.reproduce import choices
from xresnet.reproduce.data import Data
from xresnet.reproduce.engine import CAFFE, Engine
from xresnet.reproduce.run import Run
from xresnet.reproduce.schedule import Plateau, Schedule, Stages
from xresnet.reproduce.start import Start, hold_imagenet, is_imagenet
from xresnet.reproduce.training import Training

# What a grid file holds; the ranges of its numbers are held where they are used.
ROW = {
    **{"name": str, "net": [str], "seeds?": [int]},
    **{"solver?": [str], "weights?": [str], "branch_init?": str, "data?": str},
}
FILE = {
    **{"name": str, "what?": str, "net?": [str], "solver?": [str], "weights?": [str]},
    **{"branch_init?": str, "bn_epsilon?": float},
    **{"plateau?": {str: (float, str)}, "stages?": [{"lr": float, "epochs": int}]},
    **{"shuffle?": bool, "seeds?": [int], "rows?": [ROW], "like?": str},
    **{"arms?": {str: [str]}, "primary?": [[str]], "exploratory?": [[str]]},
}


@dataclass(frozen=True)
class Row:
    """A net that is trained once per seed."""

    name: str
    net: Network
    seeds: tuple[int, ...] = (1,)
    solver: dict[str, Any] = field(default_factory=dict)
    weights: tuple[Path, ...] | None = None  # None: the grid's
    data: Path | None = None  # None: the grid's
    branch_init: str | None = None  # None: the grid's


@dataclass(frozen=True)
class Grid:
    """The content of a grid file."""

    name: str
    rows: tuple[Row, ...]
    what: str = ""
    plateau: Plateau = field(default_factory=Plateau)
    stages: tuple[tuple[float, int], ...] = ()  # (rate, epochs); none: the plateau rule
    shuffle: bool = False
    weights: tuple[Path, ...] = ()
    branch_init: str | None = None
    bn_epsilon: float | None = None
    arms: dict[str, list[str]] = field(default_factory=dict)
    primary: tuple[list[str], ...] = ()
    exploratory: tuple[list[str], ...] = ()

    @classmethod
    def read(cls, path: Path) -> Grid:
        """Read a grid file.

        Raises:
            UserError: there is no such file, or a mistake in it; the message says where.
        """
        values = _values(path)
        if "plateau" in values and "stages" in values:
            raise UserError(f"{path}: `plateau` or `stages`, not both")
        rules = {f.name for f in fields(Plateau)}
        _know(f"{path}, plateau", values.get("plateau", {}), rules)
        shared, solver = _shared(values, path)
        seeds = _seeds(values.get("seeds", [1]), str(path))
        rows: list[Row] = []
        for row in values.get("rows", ()):
            where = f"{path}, row {len(rows) + 1}"
            _know(where, row, _keys(ROW))
            if not row["net"] or not row["name"] or not row["name"].isprintable():
                raise UserError(f"{where}: a row has a name that can be printed, and a net")
            own = choices.of_solver(row.get("solver", ()), f"{where}, solver")
            rows.append(
                Row(
                    row["name"],
                    _network(row["net"], shared, where),
                    _seeds(row["seeds"], where) if "seeds" in row else seeds,
                    {**solver, **own},
                    _paths(row["weights"]) if "weights" in row else None,
                    Path(row["data"]) if "data" in row else None,
                    branch_init=_branch_init(row, where),
                )
            )
        if not rows:
            raise UserError(f"{path}: no row, nothing to train")
        names = [row.name for row in rows]
        if len(set(map(_folder, names))) != len(names):
            raise UserError(f"{path}: two rows have the same name")
        return cls(
            name=values["name"],
            rows=tuple(rows),
            what=values.get("what", ""),
            plateau=Plateau(**values.get("plateau", {})),
            stages=tuple(_stage(v, f"{path}, stages") for v in values.get("stages", ())),
            shuffle=bool(values.get("shuffle", False)),
            weights=_paths(values.get("weights", ())),
            branch_init=_branch_init(values, str(path)),
            bn_epsilon=_bn_epsilon(values, str(path)),
            **_comparisons(values, names, path),
        )

    def runs(self, data: Data, out: Path, engine: Engine = CAFFE) -> list[tuple[Row, Run]]:
        """All runs, seed by seed.

        Raises:
            UserError: a row's data folder has no databases, its net does not fit them, or there
                are no weights for it.
        """
        beside = data.folder.root.parent
        folders = {r.data: Data.read(beside / r.data) if r.data else data for r in self.rows}
        for row in self.rows:
            try:
                folders[row.data].network(row.net).net()
            except UserError as error:
                raise UserError(f"row {row.name!r}: {error}") from error
        most = max(len(row.seeds) for row in self.rows)
        weights = self._weights({row.name: folders[row.data] for row in self.rows}, out / "weights")
        return [
            (row, self._run(row, i, folders[row.data], weights[row.name], out, engine))
            for i in range(most)
            for row in self.rows
            if i < len(row.seeds)
        ]

    def _weights(self, data: dict[str, Data], folder: Path) -> dict[str, tuple[Path, ...]]:
        """Row -> initial weights of all its seeds; those made of ImageNet's go into `folder`."""
        wanted, lacking = {}, []
        for row in self.rows:
            files = self.weights if row.weights is None else row.weights
            net, start = data[row.name].network(row.net, "DATA"), Start()
            if any(map(is_imagenet, files)):
                start = Start(row.branch_init or self.branch_init, self.bn_epsilon)
                lacking += [] if start.is_made(net, folder) else [net]
            wanted[row.name] = start, files, net
        hold_imagenet(lacking)
        return {
            name: start.weights(files, net, folder) for name, (start, files, net) in wanted.items()
        }

    def _run(
        self, row: Row, i: int, data: Data, weights: tuple[Path, ...], out: Path, engine: Engine
    ) -> Run:
        """The run of a row's seed number `i`."""
        seed = row.seeds[i]
        name = f"{_folder(row.name)}-{seed}"
        if self.shuffle:
            folder = f"{row.data.name}-order-{seed}" if row.data else f"order-{seed}"
            data = data.reordered(seed, out / "data" / folder)
        training = Training(
            name=name,
            net=row.net,
            data=data,
            folder=out / "runs" / name,
            schedule=self._schedule(row, data),
            solver={**row.solver, "seed": seed},
            weights=weights,
            engine=engine,
        )
        return Run(training, both=True)

    def _schedule(self, row: Row, data: Data) -> Schedule:
        if not self.stages:
            return self.plateau
        options = data.network(row.net).options
        return Stages.of_epochs(self.stages, -(-options.train_images // options.batch))


def _values(path: Path, likes: tuple[Path, ...] = ()) -> dict[str, Any]:
    """What a grid file says, and what the one says that it is like."""
    values: dict[str, Any] = shapes.read(path, FILE)
    _know(path, values, _keys(FILE))
    if "like" not in values:
        return values
    other = path.with_name(f"{values['like']}.json")
    if other in (path, *likes):
        raise UserError(f"{path}: `like` leads back to {other.name}")
    if not other.is_file():
        raise UserError(f"{path}: `like` names {values['like']!r}, and {other} is no file")
    base = _values(other, (path, *likes))
    net = [*base.get("net", ()), *values.get("net", ())]
    return {**base, **values, "net": net}


def _folder(name: str) -> str:
    """A row's name in the name of a folder."""
    return name.replace(" ", "_").replace("/", "_")


def _keys(shape: dict[str, Any]) -> set[str]:
    return {name.rstrip("?") for name in shape}


def _know(where: object, values: dict[str, Any], known: set[str]) -> None:
    for name in values:
        check_known(name, known, f"{where}: unknown")


def _comparisons(values: dict[str, Any], rows: list[str], path: Path) -> dict[str, Any]:
    """The arms of a grid file, and the pairs of them that are compared."""
    arms = values.get("arms", {})
    for name, members in arms.items():
        for row in members:
            check_known(row, rows, f"{path}, arms, {name}: no row")
    known = [*rows, *arms]
    found: dict[str, Any] = {"arms": arms}
    for kind in ("primary", "exploratory"):
        for pair in values.get(kind, ()):
            if len(pair) != 2:
                raise UserError(f"{path}, {kind}: a comparison is a pair of arms, not {pair!r}")
            for name in pair:
                check_known(name, known, f"{path}, {kind}: no arm")
        found[kind] = tuple(values.get(kind, ()))
    return found


def _shared(values: dict[str, Any], path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of net and solver that all rows share."""
    name, net = choices.of_net(values.get("net", ()), f"{path}, net")
    if name:
        raise UserError(f"{path}, net: {name!r} is no option; each row names its net")
    return net, choices.of_solver(values.get("solver", ()), f"{path}, solver")


def _network(words: Sequence[str], shared: dict[str, Any], where: str) -> Network:
    """The net of a row, whose own options override the shared ones."""
    name, own = choices.of_net(words, where)
    if not name:
        raise UserError(f"{where}: its `net` names none")
    try:
        return Network(name, {**shared, **own})
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _seeds(values: Any, where: str) -> tuple[int, ...]:
    if not values or len(set(values)) != len(values):
        raise UserError(f"{where}: seeds are a list of different numbers")
    return tuple(SEED.check(value, f"{where}, seeds") for value in values)


def _stage(values: Any, where: str) -> tuple[float, int]:
    _know(where, values, {"lr", "epochs"})
    return RATE.check(values["lr"], f"{where}, lr"), COUNT.check(values["epochs"], where)


def _branch_init(values: dict[str, Any], where: str) -> str | None:
    chosen = values.get("branch_init")
    if chosen is not None and chosen not in BRANCH_INITS:
        raise UserError(f"{where}: branch_init is {' or '.join(BRANCH_INITS)}, not {chosen!r}")
    return chosen


def _bn_epsilon(values: dict[str, Any], where: str) -> float | None:
    chosen = values.get("bn_epsilon")
    return None if chosen is None else POSITIVE.check(chosen, f"{where}, bn_epsilon")


def _paths(values: Sequence[str]) -> tuple[Path, ...]:
    return tuple(map(Path, values))
