"""Files on any fsspec URL: arrays, tables, input, images; nothing here knows a run."""
