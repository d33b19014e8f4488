"""Faults that are declared, validated and reproducible, so that a failure seen once can be shown again."""
