"""Worlds: tasks, and the simulators that run them. Installed and imported as `embodied.envs`."""

if __name__ != "embodied.envs":  # a second copy would have second, unequal classes
    raise ImportError(f"`{__name__}` is part of embodied: import `embodied.envs` instead")
