"""Whether two images are copies, by their pixels: one judge for every stage and command."""
