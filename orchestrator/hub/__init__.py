"""The hub: the process that owns sockets, memory and children, and performs what routing and supervision decide."""
