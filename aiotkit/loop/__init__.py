"""The whole circle on one machine: the simulated fleet, the demo, closed-loop experiments."""
