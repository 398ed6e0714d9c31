"""One module a subcommand of `triptych`."""
