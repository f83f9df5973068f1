"""The device: it gathers windows and context, decides, journals, delivers, updates and recovers."""
