"""Do: every touch of the outside world, one logical step or side effect each."""
