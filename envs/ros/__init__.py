"""ROS and what speaks like it: transports of messages behind one contract."""
