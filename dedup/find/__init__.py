"""Looking images up in a finished run: queries, flags, and a server."""
