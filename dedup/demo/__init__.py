"""Demo shards and planted duplication sets, each with its truth; demo shards need the extra `demo` for their photos."""
