"""Alternating projections: when a problem instance ends, and which proxies begin the next one."""
