"""Command-line programs around the library."""
