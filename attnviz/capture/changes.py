"""Changes to objects of others, taken back whatever ends the block, an interrupt at any line included."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Self

from torch import nn

# An interrupt may strike while a change is taken back, and a second one while it is taken back again.
_ATTEMPTS = 3
_ABSENT = object()


class Changes(ExitStack):
    """A context manager that changes objects on entering, all of them or none, and takes the changes back.

    What takes a change back is noted before the change is made, can be called at any time, and is noted several
    times: an `ExitStack` runs all that was noted, also when an interrupt ends one of them half-way. Leaving begins
    in the standard library's code and not in a method here, whose first line an interrupt could strike.
    """

    def __enter__(self) -> Self:
        """Make the changes."""
        try:
            try:
                self._make()
                return self
            except BaseException:
                self.close()
                raise
        except BaseException:
            self.close()  # for what an interrupt kept the line above from
            raise

    @abstractmethod
    def _make(self) -> None:
        """Make the changes, by the methods below."""

    def _finally(self, undo: Callable[[], Any]) -> None:
        """Note what is done on leaving; it may be called several times."""
        for _ in range(_ATTEMPTS):
            self.callback(undo)

    def _enter(self, manager: AbstractContextManager[Any]) -> None:
        """Enter a context manager that can be left several times."""
        self._finally(functools.partial(manager.__exit__, None, None, None))
        manager.__enter__()

    def _replace(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute of one object, and put back what it had of its own, or nothing."""
        own = vars(owner).get(name, _ABSENT)

        def undo() -> None:
            if own is _ABSENT:
                vars(owner).pop(name, None)
            else:
                setattr(owner, name, own)

        self._finally(undo)
        setattr(owner, name, value)

    def _hook(self, register: Callable[..., Any], hook: Callable[..., Any], **settings: Any) -> None:
        """Register a forward hook by a module's own method, and take it out."""
        self._finally(functools.partial(_remove_hook, register.__self__, hook))  # type: ignore[attr-defined]
        register(hook, **settings)


@contextmanager
def held(manager: Changes) -> Iterator[None]:
    """Enter a manager for a block of this package's own code.

    An interrupt may strike a ``with`` statement after its block and before it leaves its manager. A generator
    that nothing leaves is closed when it is let go of, and then leaves what it holds.
    """
    try:
        with manager:
            yield
    finally:
        manager.close()


def _remove_hook(module: nn.Module, hook: Callable[..., Any]) -> None:
    for kind in ("_forward_pre_hooks", "_forward_hooks"):
        hooks = getattr(module, kind)
        for key in [key for key, each in hooks.items() if each == hook]:
            getattr(module, f"{kind}_with_kwargs").pop(key, None)
            hooks.pop(key, None)
