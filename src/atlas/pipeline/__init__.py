"""The stage runner, atomic files, the parallel map and processes."""
