"""Every error that `mige` raises on purpose.

MigeError
├── InvalidInputError (also a ValueError)         the caller's mistake: a name, a value, a file
└── NumericalError    (also an ArithmeticError)   NaN, infinity, a failed factorisation

Each takes its message as the only argument, so it survives pickling between processes.
"""


class MigeError(Exception):
    """Base of every error of this package."""


class InvalidInputError(MigeError, ValueError):
    """An argument or a file is not acceptable; the message names it, its value and the remedy."""


class NumericalError(MigeError, ArithmeticError):
    """A computation met or produced values that are not finite, or could not be completed."""
