"""YAML as its two versions read it.

PyYAML reads 1.1, where `no` is false, `12:30` a number and `1e3` a text; other readers go by 1.2,
whose types are those of JSON. A date is a text in both: no schema has a type for it.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

_LONGEST_OWN = 50_000
"""Characters that PyYAML's own, slow parser reads within the limit of time; libyaml, which reads
longer ones, differs in `{a:[1]}`."""
_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_CORE = (
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE"), "tTfF"),
    ("null", re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""]),
    ("int", re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"), "-+0123456789"),
    (
        "float",
        re.compile(
            r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
        ),
        "-+0123456789.",
    ),
    ("merge", re.compile(r"<<"), "<"),
)
"""The plain scalars of the core schema of YAML 1.2 (section 10.3.2), and merge keys: (tag, form,
first characters)."""


def parse(text: str, core: bool = False) -> Any:
    """The value of a document in YAML 1.1, or with `core` in YAML 1.2.

    Raises what the parser raises, and ValueError where a mapping names a key twice.
    """
    opened = _loader(core, len(text) > _LONGEST_OWN)(text)
    try:
        node = opened.get_single_node()
        if node is None:
            return None
        _check_keys(node)
        return opened.construct_document(node)
    finally:
        opened.dispose()


def parse_as_reference(text: str) -> Any:
    """As nemo-gym reads it: of two equal keys the last, dates as dates."""
    import yaml

    return yaml.load(text, Loader=_plain_loader(len(text) > _LONGEST_OWN))


def _plain_loader(is_long: bool) -> Any:
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader) if is_long else yaml.SafeLoader


@cache
def _loader(core: bool, is_long: bool) -> Any:
    """A class of loaders for one version."""
    base = _plain_loader(is_long)
    resolvers = {
        first: [pair for pair in pairs if pair[0] != _TIMESTAMP]
        for first, pairs in base.yaml_implicit_resolvers.items()
    }
    name = "YAML12" if core else "YAML11"
    made: Any = type(name, (base,), {"yaml_implicit_resolvers": {} if core else resolvers})
    if core:
        for tag, form, first in _CORE:
            whole = re.compile(rf"(?:{form.pattern})\Z")
            made.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", whole, list(first))
        made.add_constructor("tag:yaml.org,2002:int", _whole_number)
    return made


def _whole_number(loader: Any, node: Any) -> int:
    """`017` is seventeen in YAML 1.2."""
    text = loader.construct_scalar(node)
    for prefix, base in (("0o", 8), ("0x", 16)):
        if text.startswith(prefix):
            return int(text.removeprefix(prefix), base)
    return int(text)


def _check_keys(root: Any) -> None:
    """Raises ValueError where a mapping of a document names a key twice."""
    import yaml

    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        # An alias is the node that it stands for.
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            names = [(key.tag, key.value) for key in keys]
            if len(set(names)) < len(names):
                raise ValueError("an object names a property twice")
            waiting += [part for _, part in node.value]
