"""From a decision to a signed bundle."""
