"""Arrays in, arrays out: no files, no Arrow, no engines."""
