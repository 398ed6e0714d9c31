"""What happened when: recorded by the hub, made sense of by who asks."""
