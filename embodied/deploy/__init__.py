"""What stands between a policy and a robot: messages, the guard, its limits, its record."""
