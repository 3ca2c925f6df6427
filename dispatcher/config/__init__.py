"""Fills the settings from the environment; nothing else reads it.

`table` defines every setting once, `values` reads their texts, `reading` puts them together.
"""

from dispatcher.config.reading import EffectiveSetting, LocalAddresses, Need, effective, load, local_dir, local_wanted
from dispatcher.config.table import PREFIX, Setting, describe

__all__ = [
    "PREFIX",
    "EffectiveSetting",
    "LocalAddresses",
    "Need",
    "Setting",
    "describe",
    "effective",
    "load",
    "local_dir",
    "local_wanted",
]
