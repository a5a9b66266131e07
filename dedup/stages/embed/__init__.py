"""The stage embed: samples become vectors, and rows of metadata."""
