"""The extraction attack's side: generated images scored against the training images they were aimed at."""
