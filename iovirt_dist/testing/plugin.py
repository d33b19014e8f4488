"""The pytest plugin: fixtures that start a topology of real processes."""
