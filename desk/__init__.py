"""People come in here: the command line and the settings."""
