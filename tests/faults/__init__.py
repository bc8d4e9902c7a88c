"""What `tests/chaos` does to a cluster, a module for each means."""
