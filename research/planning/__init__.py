"""Planning: what a run will need in memory, communication and time, before it runs."""
