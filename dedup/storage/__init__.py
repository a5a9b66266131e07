"""Files: shards and images in, tables and embeddings out."""
