"""Rewards for the turns of agents that speak. One method a file."""
