"""The commands, a module each: `add` declares its arguments, `run` does it."""
