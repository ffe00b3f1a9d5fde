"""`python -m xresnet.realcaffe install | path | remove | lock`."""

from __future__ import annotations

if __name__ == "__main__":  # before the other imports, during which Ctrl-C may come
    from xresnet.basics import cli

    cli.run("xresnet.realcaffe.__main__", "realcaffe")

import json
import time
from pathlib import Path

from xresnet.basics import files
from xresnet.basics.cli import Parser, UserError
from xresnet.realcaffe import install, lock, mirrors, resolve, tools, wrappers

_EXAMPLES = """\
examples:
  python -m xresnet.realcaffe install                       what `make` does
  python -m xresnet.realcaffe install --mirror http://my.mirror/debian
  python -m xresnet.realcaffe path --json                   for scripts
  python -m xresnet.realcaffe remove --keep-packages        a new installation then needs no network
"""

_INSTALL_EXAMPLES = """\
A Caffe that is already on PATH (in Docker, or your own CUDA build) is used
instead, unless --own is given. Packages come from the given mirror; without
one from the Debian mirror in this machine's apt sources, else from Debian's
dated snapshot service. All are checked against the committed SHA-256.

pycaffe is Python 3.9 with `import caffe`; it reads its module path from
PYCAFFE_PATH and ignores PYTHONPATH, which is for your own Python.

examples:
  python -m xresnet.realcaffe install
  python -m xresnet.realcaffe install --own --bin ~/bin
  XRESNET_DEBIAN_MIRROR=/media/debian python -m xresnet.realcaffe install
"""


def _parser() -> Parser:
    parser = Parser(
        "realcaffe",
        description="Install, find or remove real Caffe on this machine.",
        epilog=_EXAMPLES,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, help: str, epilog: str) -> Parser:
        command = commands.add_parser(name, help=help, description=help, epilog=epilog)
        command.add_argument(
            "--bin",
            type=Path,
            metavar="DIR",
            help="folder of the commands (default: the venv's)",
        )
        return command

    command = add("install", "install caffe and its tools into the venv", _INSTALL_EXAMPLES)
    command.add_argument("--mirror", metavar="URL", help=f"Debian mirror (or ${mirrors.VARIABLE})")
    command.add_argument("--own", action="store_true", help="install even if a Caffe is on PATH")
    command.add_argument(
        "--quiet", action="store_true", help="print nothing if it is already installed"
    )

    command = add(
        "path", "print where the tools are", "example: python -m xresnet.realcaffe path --json"
    )
    command.add_argument("--json", action="store_true", help="as JSON")

    command = add(
        "remove",
        "delete what install created",
        "example: python -m xresnet.realcaffe remove",
    )
    command.add_argument("--keep-packages", action="store_true", help="keep the fetched packages")

    command = commands.add_parser(
        "lock",
        help="for maintainers: regenerate the lock file with apt",
        epilog="example: python -m xresnet.realcaffe lock --mirror http://my.mirror/debian",
    )
    command.add_argument("--mirror", metavar="URL", help="Debian mirror with the suite bullseye")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; `argv` does not include the program's name."""
    args = _parser().parse_args(argv)
    if args.command == "lock":
        return _lock(args.mirror)
    if args.command == "path":
        return _path(args.bin, args.json)
    where = install.place(args.bin)
    if args.command == "remove":
        return _remove(where, args.keep_packages)
    return _install(where, args.mirror, args.own, args.quiet)


def _install(where: install.Place, mirror: str | None, own: bool, quiet: bool) -> int:
    if install.is_installed(where):
        if quiet:
            return 0
        print(f"caffe is installed: {where.bin / 'caffe'}")
        other = next(tools.on_path("caffe"), None)
        if other and not own:
            print(
                f"not used: {other}; "
                "to change that: python -m xresnet.realcaffe remove --keep-packages"
            )
        return 0
    foreign = None if own else tools.foreign_caffe()
    if foreign:
        print(f"caffe {tools.version(foreign)} is on PATH: {foreign}; nothing to install")
        python = install.adopt(where)
        none = "none: no Python on this machine can import caffe (--own installs one)"
        print(f"pycaffe: {python or none}")
        return 0
    start = time.monotonic()
    install.install(where, mirror)
    found = tools.version(where.bin / "caffe")
    print(f"caffe {found} is installed: {where.bin / 'caffe'} ({time.monotonic() - start:.0f} s)")
    return 0


def _path(bin_folder: Path | None, as_json: bool) -> int:
    caffe = tools.find("caffe", bin_folder)
    ours = wrappers.is_ours(caffe)
    places: dict[str, str | None] = {}
    for tool in tools.TOOLS:
        try:
            places[tool] = str(tools.find(tool, bin_folder))
        except UserError:  # a foreign build need not have all of them
            places[tool] = None
    facts = {
        **places,
        "version": tools.version(caffe),
        "build": "Debian bullseye, CPU only" if ours else "on PATH",
        "lock": lock.read().digest if ours else None,
    }
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        for name, value in facts.items():
            print(f"{name:<20}{value or '-'}")
    return 0


def _remove(where: install.Place, keep_packages: bool) -> int:
    if not where.bin.is_dir():
        raise UserError(f"--bin {where.bin}: no such folder")
    for path in install.remove(where, keep_packages):
        print(f"removed {path}")
    return 0


def _lock(mirror: str | None) -> int:
    base = mirrors.candidates(mirror, lock.read().snapshot)[0]
    files.write(lock.LOCK_FILE, resolve.resolve(base))
    lock.read.cache_clear()
    fresh = lock.read()
    print(f"{lock.LOCK_FILE}: {len(fresh.packages)} packages, {fresh.size / 1e6:.0f} MB")
    return 0
