"""Where a service keeps everything unless it is told otherwise; its clients look there too."""

from pathlib import Path
from typing import Final

DEFAULT_HOME: Final = Path("~/.local/share/mige")  # expanded when it is used: tests change HOME
