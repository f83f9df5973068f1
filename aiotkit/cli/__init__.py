"""The command line: one module a noun, imported lazily."""
