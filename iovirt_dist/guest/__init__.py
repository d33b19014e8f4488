"""Guests: CPU engines, machines, memory, image loader, traps, scripted guests."""
