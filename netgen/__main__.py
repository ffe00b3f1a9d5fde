import sys

from basics import cli
from netgen import command, diff

if sys.argv[1:2] == ["diff"]:
    cli.run(lambda argv: diff.main(sys.argv[2:]), "netgen diff")
cli.run(command.main, "netgen")
