import sys

from netgen import command, diff
from xresnet.basics import cli

if sys.argv[1:2] == ["diff"]:
    cli.run(lambda argv: diff.main(sys.argv[2:]), "netgen diff")
cli.run(command.main, "netgen")
