"""Reward models, one file per method. Installed and imported as `embodied.reward_models`."""

if __name__ != "embodied.reward_models":  # a second copy would have second, unequal classes
    raise ImportError(f"`{__name__}` is part of embodied: import `embodied.reward_models` instead")
