"""Entry points: one per process type, each `python -m services.TYPE [NAME]`."""
