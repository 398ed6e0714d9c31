"""The subcommands of `triptych`, one file each, and what they share."""
