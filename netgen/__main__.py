from basics import cli
from netgen.command import main

cli.run(main, "netgen")
