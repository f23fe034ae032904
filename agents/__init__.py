"""Algorithms, one file each. Installed and imported as `embodied.agents`."""

if __name__ != "embodied.agents":  # a second copy would have second, unequal classes
    raise ImportError(f"`{__name__}` is part of embodied: import `embodied.agents` instead")
