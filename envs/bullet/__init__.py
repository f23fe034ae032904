"""A second physics engine: the arm tasks in PyBullet, one client a world."""
