"""The commands, a module each: its name and help, `add` declares its arguments, `run` does it."""
