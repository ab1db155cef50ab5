"""Alternating projections: when a problem instance ends, and the choice of proxies for the next one."""
