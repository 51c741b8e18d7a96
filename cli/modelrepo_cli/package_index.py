"""The options of the verbs that build an environment: where its packages come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from modelrepo.environments import IndexSettings

_Function = TypeVar("_Function", bound=Callable[..., Any])


def options(folder_of_wheels: str = "A folder of wheels; repeat it.") -> Callable[[_Function], _Function]:
    """Add `--index-url`, `--extra-index-url` and `--find-links`; the last with a help of its own."""
    added = [
        click.option("--index-url", metavar="URL", help="The package index, in place of uv's or pip's own setting."),
        click.option("--extra-index-url", multiple=True, metavar="URL", help="A further package index; repeat it."),
        click.option("--find-links", multiple=True, metavar="DIR", help=folder_of_wheels),
    ]

    def decorate(function: _Function) -> _Function:
        for option in reversed(added):
            function = option(function)
        return function

    return decorate


def build_options(function: _Function) -> _Function:
    """Add `--allow-builds` and `--link-mode`, of the verbs that keep the environment that they build."""
    modes = click.Choice(["hardlink", "copy"])
    told = "How an environment gets its files: links are shared with others, copies are its own."
    function = click.option("--link-mode", type=modes, default="hardlink", show_default=True, help=told)(function)
    return click.option("--allow-builds", is_flag=True, help="Compile packages that have no wheel here.")(function)


def settings(index_url: str | None, extra_index_url: tuple[str, ...], find_links: tuple[str, ...]) -> IndexSettings:
    """Return what the options say, and what the environment says where they are silent."""
    from modelrepo.environments import IndexSettings

    return IndexSettings.from_environment(default_index=index_url, indexes=extra_index_url, find_links=find_links)
