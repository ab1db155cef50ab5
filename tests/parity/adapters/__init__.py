"""One adapter per golden file: runs a recorded case through the public functions."""
