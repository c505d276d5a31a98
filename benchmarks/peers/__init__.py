"""Peers that cannot share a process with us: each has an environment of its own, which a script here builds."""
