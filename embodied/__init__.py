"""A workbench for the reward side of robot learning.

The core knows contracts; `embodied.envs`, `embodied.agents` and `embodied.reward_models` hold
implementations; configuration joins them. Importing this package imports nothing heavy, and
registers the Gymnasium ids `embodied/NAME`.
"""

from embodied.registration import register_envs

__version__ = "0.1.0"

register_envs()
