"""Which job goes where, when: pure, but for costs kept from run to run."""
