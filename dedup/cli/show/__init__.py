"""What commands print: summaries, tables and progress on a terminal."""
