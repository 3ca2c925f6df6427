"""The I/O loops between a record's arrival and its offset's completion."""
