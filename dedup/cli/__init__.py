"""The command line: parses, calls the package, prints."""
