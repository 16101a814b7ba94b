"""Change objects that belong to others, and undo the changes on every exit, an interrupt at any line included."""

from __future__ import annotations

import functools
import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Self

from torch import nn

# An interrupt may strike during an undo, and a second one during the repeated undo.
_ATTEMPTS = 3
_ABSENT = object()


class Changes(ExitStack):
    """Context manager that makes all of its changes or none on entry, and undoes them on exit.

    Each undo is registered before its change is made, is idempotent, and is registered several times: an
    `ExitStack` runs every callback, even when an interrupt ends one of them half-way. The class inherits
    ``__exit__`` from the standard library, because an interrupt could strike the first line of a method here.
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
            self.close()  # an interrupt may have ended the close above
            raise

    @abstractmethod
    def _make(self) -> None:
        """Make the changes, with the methods below."""

    def _finally(self, undo: Callable[[], Any]) -> None:
        """Register an idempotent function that is called on exit."""
        for _ in range(_ATTEMPTS):
            self.callback(undo)

    def _enter(self, manager: AbstractContextManager[Any]) -> None:
        """Enter a context manager whose ``__exit__`` may be called several times."""
        self._finally(functools.partial(manager.__exit__, None, None, None))
        manager.__enter__()

    def _replace(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute on one instance; on exit, restore the instance's attribute or delete it."""
        own = vars(owner).get(name, _ABSENT)

        def undo() -> None:
            if own is _ABSENT:
                vars(owner).pop(name, None)
            else:
                setattr(owner, name, own)

        self._finally(undo)
        setattr(owner, name, value)

    def _hook(self, register: Callable[..., Any], hook: Callable[..., Any], **settings: Any) -> None:
        """Register a forward hook with a module's registration method; on exit, remove it."""
        self._finally(functools.partial(_remove_hook, register.__self__, hook))  # type: ignore[attr-defined]
        register(hook, **settings)


@contextmanager
def held(manager: Changes) -> Iterator[None]:
    """Enter a manager around a block of this package's code.

    An interrupt may strike between the block of a ``with`` statement and the manager's ``__exit__``. Python closes
    a generator that is no longer referenced, and the ``finally`` clause here then closes the manager.
    """
    try:
        with manager:
            yield
    finally:
        manager.close()


def observed(
    function: Callable[..., Any],
    *,
    before: Callable[[Mapping[str, Any]], None] | None = None,
    after: Callable[[Mapping[str, Any], Any], None] | None = None,
) -> Callable[..., Any]:
    """Return a function that does the same as another, and reports its arguments by name, and its result.

    Parameters
    ----------
    function : callable
    before : callable, optional
        Called with the given arguments by name, before the function.
    after : callable, optional
        Called with the given arguments by name and the result.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        arguments = dict(signature.bind(*args, **kwargs).arguments)
        if before is not None:
            before(arguments)
        result = function(*args, **kwargs)
        if after is not None:
            after(arguments, result)
        return result

    return call


def _remove_hook(module: nn.Module, hook: Callable[..., Any]) -> None:
    for kind in ("_forward_pre_hooks", "_forward_hooks"):
        hooks = getattr(module, kind)
        for key in [key for key, each in hooks.items() if each == hook]:
            getattr(module, f"{kind}_with_kwargs").pop(key, None)
            hooks.pop(key, None)
