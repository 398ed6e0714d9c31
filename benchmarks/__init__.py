"""Measurements that the README quotes. They print figures and assert nothing."""
