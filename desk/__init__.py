"""People come in here: the command line and the settings."""

import gc

# A short command mostly imports, and what that makes stays: a search for garbage so often would be a fifth of its time.
gc.set_threshold(100_000, *gc.get_threshold()[1:])
