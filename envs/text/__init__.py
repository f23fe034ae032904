"""Worlds of text: games, households, laboratories, databases, libraries. One file each."""
