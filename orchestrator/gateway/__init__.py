"""The HTTP gateway: a process of its own, and a client of the hub like any other."""
