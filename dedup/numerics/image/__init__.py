"""One image as numbers: its descriptor, its views, its frame, and the changes that are planted in copies."""
