"""x"""

from pathlib import Path

Store = Path
