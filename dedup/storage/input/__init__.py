"""What a run is made from: shards, folders of images, published embeddings, and lists of names."""
