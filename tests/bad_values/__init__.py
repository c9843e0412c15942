"""Every public callable with a bad value for each of its arguments, the others being valid."""
