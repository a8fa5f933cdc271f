"""The commands behind the command line, one file per kind; each is imported when it is called."""
