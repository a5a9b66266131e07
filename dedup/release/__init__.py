"""What a run keeps, for others: cleaned shards, lists, folders for other tools, a filter for training."""
