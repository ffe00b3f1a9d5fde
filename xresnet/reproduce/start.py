"""Initial weights: `--weights imagenet` converts ImageNet's weights for any of our nets.

FOLDER/NET-DIGEST.caffemodel   what `netgen.weights init` makes of the published weights
       NET-DIGEST.json         from which package or file, how, and what became of each layer

Those of ResNets come from package registries (`netgen.weights.fetch`). No registry is known
to carry those of the other baselines: a user who has such a file puts it into the cache.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from netgen import Network
from netgen.blocks import DEPTHS
from netgen.options import Trunk
from netgen.weights import fetch, plan, source
from netgen.weights.plan import BRANCH_INITS
from netgen.weights.source import Source
from xresnet.basics import cache
from xresnet.basics.bars import say
from xresnet.basics.cli import UserError
from xresnet.basics.files import digest, read_json, sha256, write_json
from xresnet.caffeproto import caffemodel
from xresnet.reproduce.net import weights_of

IMAGENET = Path("imagenet")  # the word that stands for a file
MADE = 1  # raise it where `plan` makes other weights of the same files than before
BLOCKS = DEPTHS[50]
PACKAGE_OF_WIDTHS = {(64, 64): "resnet50", (32, 64): "resnet50_thin"}  # res2's and conv1's


@dataclass(frozen=True)
class Brought:
    """A published .caffemodel that users must bring, with its published SHA-1."""

    file: str
    sha1: str


BVLC_CAFFENET = Brought(
    "bvlc_reference_caffenet.caffemodel", "4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46"
)
BROUGHT = {
    "caffenet": BVLC_CAFFENET,
    "cross_stitch_caffenet": BVLC_CAFFENET,
    "inception_v1": Brought(
        "bvlc_googlenet.caffemodel", "405fc5acd08a3bb12de8ee5e23a96bec22f08204"
    ),
    "vggnet16": Brought(
        "VGG_ILSVRC_16_layers.caffemodel", "9363e1f6d65f7dba68c4f27a1e62105cdf6c4e24"
    ),
}


@dataclass(frozen=True)
class Start:
    """How ImageNet's weights become initial weights; None is the default of `netgen.weights`."""

    branch_init: str | None = None
    bn_epsilon: float | None = None

    def weights(self, files: Sequence[Path], net: Network, folder: Path) -> tuple[Path, ...]:
        """The files of weights that `files` name: itself, or of a run its last snapshot's.

        In place of `imagenet` stands the file made in `folder` for the net.

        Raises:
            UserError: there are no such weights for that net, or they cannot be had; or
                `imagenet` is not among the files, but a choice of how to convert it.
        """
        self.refuse_idle(files)
        return tuple(
            self.made(net, folder) if is_imagenet(path) else weights_of(path) for path in files
        )

    def refuse_idle(self, files: Iterable[Path]) -> None:
        """Refuse choices of how to convert ImageNet's weights, if they are not among the files.

        Raises:
            UserError: there is such a choice without `imagenet`.
        """
        if self != Start() and not any(map(is_imagenet, files)):
            raise UserError("--branch-init and --bn-epsilon go with --weights imagenet")

    def made(self, net: Network, folder: Path) -> Path:
        """The file in `folder` of the net's initial weights, made if it is not there.

        Raises:
            UserError: there are no such weights for that net, or they cannot be had.
        """
        path, how = self._place(net, folder)
        if not _is_whole(path):
            title, layers, report = self._initial(net)
            caffemodel.save(path, title, layers)
            record = {**how, "sha256": sha256(path), "layers": asdict(report)}
            write_json(path.with_suffix(".json"), record)
        return path

    def is_made(self, net: Network, folder: Path) -> bool:
        """Whether `made` has the weights in `folder` already."""
        return _is_whole(self._place(net, folder)[0])

    def source(self, net: Network) -> Source:
        """The same weights without a file, as if read from one."""
        _, layers, _ = self._initial(net)
        return Source(str(IMAGENET), "Caffe", {x.name: x for x in layers if x.blobs})

    def _place(self, net: Network, folder: Path) -> tuple[Path, dict[str, Any]]:
        """The file of the net's weights, and how they are made, by which it is named."""
        how = {
            "net": net.words(),
            "branch_init": self.branch_init or BRANCH_INITS[0],
            "bn_epsilon": self.bn_epsilon,
            **_origin(net),
        }
        identity = json.dumps([MADE, how], sort_keys=True).encode()
        name = f"{net.entry.files(net.options)}-{hashlib.sha256(identity).hexdigest()[:12]}"
        return folder / f"{name}.caffemodel", how

    def _initial(self, net: Network) -> tuple[str, list[caffemodel.Layer], plan.Report]:
        found = _load(net, self.bn_epsilon)
        how = self.branch_init or BRANCH_INITS[0]
        title, layers, report = plan.initial(net.entry, net.options, {None: found}, how)
        for advice in report.advice:
            _note(advice)
        return title, layers, report


@functools.cache
def _note(advice: str) -> None:
    """Said once, not for every net of a table."""
    say(f"note: {advice}")


def is_imagenet(path: Path) -> bool:
    """Whether a path is the word `imagenet`, which stands for ImageNet's weights.

    Raises:
        UserError: there is a file or folder of that name here, too.
    """
    if path != IMAGENET:
        return False
    if path.exists():
        raise UserError(
            f"{path} means ImageNet's weights, but a file or folder here has that name, too: "
            f"rename it, or give its full path, {path.absolute()}"
        )
    return True


def hold_imagenet(nets: Iterable[Network]) -> None:
    """Check that ImageNet's weights of some nets are at hand; those of registries are fetched.

    Raises:
        UserError: there are none for a net, or they cannot be had. All missing files that
            users must bring are named.
    """
    found = {(net.name, *_origin(net).values()): net for net in nets}
    _refuse_missing(name for name, *_ in found if name in BROUGHT)
    for (name, *_), net in found.items():
        if name in BROUGHT:
            _brought(name)
        else:
            fetch.fetch(_package(net))


def record_of(weights: Path) -> dict[str, Any] | None:
    """How a file of initial weights was made (without its layers); None if not by `Start`."""
    found = read_json(weights.with_suffix(".json"))
    if not isinstance(found, dict) or "branch_init" not in found:
        return None
    return {name: value for name, value in found.items() if name != "layers"}


def _origin(net: Network) -> dict[str, str]:
    """The package or file with the net's published weights.

    Raises:
        UserError: there is none.
    """
    options = net.options
    if net.name in BROUGHT:
        brought = BROUGHT[net.name]
        return {"file": brought.file, "file_sha1": brought.sha1}
    widths = (options.width, options.stem_width or options.width)
    if Trunk not in net.entry.takes or widths not in PACKAGE_OF_WIDTHS:
        raise UserError(
            f"--weights imagenet: none available for {net.name} of these widths; there are "
            "ResNet-50s as published, and with --width 32 --stem-width 64"
        )
    if (options.blocks or DEPTHS.get(options.depth)) != BLOCKS:
        raise UserError(
            "--weights imagenet: only available for ResNet-50, with its number of blocks"
        )
    package = fetch.PACKAGES[PACKAGE_OF_WIDTHS[widths]]
    return {"package": package.spec, "package_sha256": package.sha256}


def _is_whole(path: Path) -> bool:
    """Whether a file that `Start` made is complete, by its record."""
    record = read_json(path.with_suffix(".json"))
    return bool(record) and path.is_file() and record.get("sha256") == sha256(path)


def _load(net: Network, epsilon: float | None) -> Source:
    """The net's published weights."""
    if net.name in BROUGHT:
        found = source.load(str(_brought(net.name)))
    else:
        package = _package(net)
        found = fetch.load(package, fetch.fetch(package), epsilon)
    fetch.check_epsilon(epsilon, [found])
    return found


def _package(net: Network) -> fetch.Package:
    """The package of a ResNet's weights."""
    spec = _origin(net)["package"]
    return next(package for package in fetch.PACKAGES.values() if package.spec == spec)


def _refuse_missing(nets: Iterable[str]) -> None:
    """Name all missing files that users must bring for `nets` at once."""
    place = cache.folder("weights")
    nets = [net for net in dict.fromkeys(nets) if not (place / BROUGHT[net].file).is_file()]
    if nets:
        wanted = dict.fromkeys(f"{BROUGHT[net].file} (SHA-1 {BROUGHT[net].sha1})" for net in nets)
        raise UserError(
            "--weights imagenet: we know of no package registry with the weights of "
            f"{', '.join(nets)}: put {', '.join(wanted)} into {place}, or leave "
            "such nets out (table2 --rows)"
        )


def _brought(net: str) -> Path:
    """The file in the cache that a user has brought for `net`."""
    _refuse_missing([net])
    wanted = BROUGHT[net]
    path = cache.folder("weights") / wanted.file
    if (found := digest(path, "sha1")) != wanted.sha1:
        raise UserError(f"{path} is another file: its SHA-1 is {found}, not {wanted.sha1}")
    return path
