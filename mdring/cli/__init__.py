"""The ``mdring`` command: ``main`` picks the subcommand, each of which is one file here and thin."""
