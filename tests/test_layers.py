"""A module imports only from the layers below it, or from its own package in its own layer; there are no cycles."""

import ast
import re
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pusher"

#: From the bottom up: a row a room, or rooms side by side. The longest match decides.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("pusher", "errors", "backoff"),
    ("config",),
    ("telemetry",),
    ("broker",),
    ("push",),
    ("push.limits",),
    ("providers.budget", "providers.tls", "providers.key_text"),
    ("providers.proxy",),
    ("providers.http2",),
    ("providers.http1",),
    ("providers.provider", "providers.open_lane", "providers.dispatch", "providers.judgement", "providers.rotation"),
    ("providers",),
    ("daemon",),
    ("listener", "sender"),
    ("commands",),
    ("__main__",),
)

#: The simulators stand for somebody else's servers: they share no code with what they test.
ALONE = "sim"


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "pusher"


#: The words of the platforms that are shipped: only their own rooms know them.
PLATFORM_WORDS = re.compile("apns|gcm|fcm|xmpp", re.IGNORECASE)
AT_HOME = ("providers", ALONE)
#: About the program that pusher replaces, which had these platforms.
ABOUT_ANOTHER = "commands.migration."

MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text())


def for_types_alone(name: str) -> set[ast.AST]:
    """What stands below `if TYPE_CHECKING`: it imports nothing when the program runs."""
    return {
        inner
        for node in ast.walk(tree(name))
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }


@cache
def imports(name: str, *, running: bool = False) -> set[str]:
    """Modules of the package that this one imports, anywhere; ``running``: without those for types alone."""
    found: set[str] = set()
    left_out = for_types_alone(name) if running else set()
    for node in ast.walk(tree(name)):
        if node in left_out:
            continue
        if isinstance(node, ast.Import):
            found |= {known_module(alias.name) for alias in node.names if in_package(alias.name)}
        elif isinstance(node, ast.ImportFrom):
            source = absolute(name, node)
            if in_package(source):
                found |= {known_module(f"{source}.{alias.name}") for alias in node.names}
    return found - {name}


def in_package(dotted: str) -> bool:
    return dotted == "pusher" or dotted.startswith("pusher.")


def absolute(importer: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    is_package = MODULES[importer].name == "__init__.py"
    base = ["pusher", *(importer.split(".") if importer != "pusher" else [])]
    base = base[: len(base) - node.level + is_package]
    return ".".join([*base, node.module] if node.module else base)


def known_module(dotted: str) -> str:
    """The longest leading part of a dotted name that is a module; "pusher" for the package's own names."""
    parts = dotted.split(".")[1:]
    while parts and ".".join(parts) not in MODULES:
        parts.pop()
    return ".".join(parts) or "pusher"


def package_of(name: str) -> str:
    return name.partition(".")[0]


def layer(name: str) -> int:
    """Rank of a module; a package's __init__ stands as high as the highest module that it lists."""
    ranks = {entry: rank for rank, row in enumerate(LAYERS) for entry in row}
    own = [entry for entry in ranks if name == entry or name.startswith(f"{entry}.")]
    inside = [rank for entry, rank in ranks.items() if entry.startswith(f"{name}.")]
    if not own and not inside:
        pytest.fail(f"pusher.{name} has no place in the table of layers", pytrace=False)
    return ranks[max(own, key=len)] if own else max(inside)


def allowed(importer: str, imported: str) -> bool:
    if package_of(importer) == ALONE:
        return package_of(imported) == ALONE
    if package_of(imported) == ALONE:
        return importer == "commands.cli" and imported == ALONE
    if package_of(importer) == package_of(imported):
        return layer(imported) <= layer(importer)
    return layer(imported) < layer(importer)


@pytest.mark.parametrize("name", [name for name in MODULES if package_of(name) != ALONE])
def test_has_a_place(name: str) -> None:
    assert layer(name) < len(LAYERS)


@pytest.mark.parametrize("name", MODULES)
def test_imports_come_from_below(name: str) -> None:
    wrong = sorted(imported for imported in imports(name) if not allowed(name, imported))
    assert not wrong, f"pusher.{name} must not import {', '.join(wrong)}"


def test_no_cycles() -> None:
    try:
        TopologicalSorter({name: imports(name) for name in MODULES}).prepare()
    except CycleError as error:
        pytest.fail("import cycle: " + " -> ".join(error.args[1]), pytrace=False)


def test_a_name_of_a_class_means_one_thing() -> None:
    """Those with several homes are terms of the field that mean the same in each of them."""
    homes: dict[str, list[str]] = {}
    for name in MODULES:
        for node in tree(name).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(name)
    shared = {name: found for name, found in homes.items() if len(found) > 1}
    assert len(shared) <= 4, shared


def test_the_hall_is_small() -> None:
    """Rooms and modules at the top, beside what makes it a package and a program."""
    found = {path.name for path in PACKAGE.iterdir()} - {"__init__.py", "__main__.py", "py.typed", "__pycache__"}
    assert len(found) <= 12, sorted(found)


@cache
def longest_chain(name: str) -> tuple[str, ...]:
    chains = [longest_chain(imported) for imported in sorted(imports(name, running=True))]
    return (name, *max(chains, key=len, default=()))


@pytest.mark.parametrize("name", MODULES)
def test_chains_of_imports_are_short(name: str) -> None:
    chain = longest_chain(name)
    assert len(chain) <= 10, " -> ".join(chain)


@pytest.mark.parametrize(
    "name", [name for name in MODULES if package_of(name) not in AT_HOME and not name.startswith(ABOUT_ANOTHER)]
)
def test_no_platform_is_named_but_at_home(name: str) -> None:
    texts = [node.value for node in ast.walk(tree(name)) if isinstance(node, ast.Constant)]
    found = [text for text in texts if isinstance(text, str) and PLATFORM_WORDS.search(text)]
    assert not found
