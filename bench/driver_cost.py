"""What the driver costs: CPU seconds of `xresnet train` itself beside those of its Caffe.

    python -m bench.driver_cost --data data/cifar

Trains the small XS net of xresnet/reproduce/grids/cifar.json, whose iterations are so short
that the driver has far more to read a second than at full size. Prints CPU
seconds of this process, its start included, and of Caffe, and the first's share of the time.
"""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path

from netgen import Network
from xresnet.basics.cli import Parser
from xresnet.basics.numbers import COUNT
from xresnet.reproduce.data import Data
from xresnet.reproduce.driver import train
from xresnet.reproduce.engine import RealCaffe
from xresnet.reproduce.schedule import Plateau
from xresnet.reproduce.training import Training

NET = {"width": 8, "blocks": (1, 1, 1, 3), "batch": 32, "bn_fraction": 0.99}


def main() -> None:
    parser = Parser("bench.driver_cost", description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="with LMDBs")
    parser.add_argument("--epochs", type=COUNT, default=2, metavar="N", help="2")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        training = Training(
            name="cost",
            net=Network("xs_resnet50", {**NET, "head_lr": 1}),
            data=Data.read(args.data),
            folder=Path(folder),
            schedule=Plateau(lr=0.02, max_epochs=args.epochs),
            solver={"display": 50, "seed": 1},
            engine=RealCaffe(threads=1),
        )
        start = time.perf_counter()
        iterations = train(training).iteration
        wall = time.perf_counter() - start
    own = time.process_time()  # since this process began: imports and all
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    caffe = used.ru_utime + used.ru_stime
    print(f"{iterations:,} iterations, {wall:.1f} s")
    print(f"Caffe   {caffe:8.2f} CPU seconds")
    print(f"driver  {own:8.2f} CPU seconds, {own / wall:.2%} of the time")


if __name__ == "__main__":
    main()
