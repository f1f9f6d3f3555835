"""What `conftest.py` decorates the method's functions with, so that every call checks its annotations."""

from collections.abc import Callable

import beartype

# An int is welcome where a float is, such as 30 frames a second.
_annotations = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))


def checked(function: Callable) -> Callable:
    """Check shapes and dtypes at each call, except of the initialisers that dataclasses generate.

    Settings check themselves, in words for a user, and JAX fills pytrees with placeholders.
    """
    return function if function.__name__ == "__init__" else _annotations(function)
