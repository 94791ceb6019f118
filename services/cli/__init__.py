"""The `mige` command: `main.py` holds the app, one module per group of commands."""
