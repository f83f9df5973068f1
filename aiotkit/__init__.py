"""aiotkit: from a decision to a signed bundle that decides on a device, and back."""

__version__ = "0.1.0"
