"""Demo shards with planted duplicates and their truth; needs the extra `demo` for its photos."""
