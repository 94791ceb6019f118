"""Where attempts run: one executor a file, all behind `base.Executor`."""
