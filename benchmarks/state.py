"""What a room's files cost a reader: `python -m benchmarks.state [FOLDER]` counts lines, state that changes, constants.

An attribute counts once for its class when anything assigns it outside of `__init__`; a constant is each number of a
module's capital names.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Count:
    """Lines, attributes that are assigned after construction, numbers in capital names."""

    lines: int
    attributes: int
    constants: int


def count(path: Path) -> Count:
    """The figures of one file."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    return Count(text.count("\n"), len(set(_assigned(tree))), sum(_numbers(tree)))


def _assigned(tree: ast.Module) -> Iterator[str]:
    """Each attribute that is assigned: with its class where it is one's own, by its bare name where it is another's."""
    for scope in tree.body:
        for function in ast.walk(scope):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) or function.name == "__init__":
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                    own = isinstance(node.value, ast.Name) and node.value.id == "self"
                    yield f"{getattr(scope, 'name', '')}.{node.attr}" if own else f".{node.attr}"


def _numbers(tree: ast.Module) -> Iterator[int]:
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        names = [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
        if node_value(node) is not None and any(name.isupper() for name in names):
            yield sum(isinstance(one, ast.Constant) and type(one.value) in (int, float) for one in _leaves(node))


def node_value(node: ast.stmt) -> ast.expr | None:
    """What a statement assigns."""
    return node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None


def _leaves(node: ast.stmt) -> Iterator[ast.AST]:
    """The values; a product such as 15 * 60.0 is one number."""
    todo: list[ast.AST] = [value] if (value := node_value(node)) is not None else []
    while todo:
        one = todo.pop()
        if isinstance(one, ast.BinOp | ast.UnaryOp):
            yield ast.Constant(0)
        else:
            yield one
            todo.extend(ast.iter_child_nodes(one))


def main() -> None:
    """Print the figures of a folder, by file and as a sum."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("pipeline/limits")
    counts = {path.name: count(path) for path in sorted(folder.glob("*.py"))}
    for name, one in counts.items():
        print(f"{name:<16} {one.lines:>5} lines {one.attributes:>4} attributes {one.constants:>4} constants")
    lines, attributes, constants = (
        sum(getattr(one, field) for one in counts.values()) for field in ("lines", "attributes", "constants")
    )
    print(f"{'all':<16} {lines:>5} lines {attributes:>4} attributes {constants:>4} constants")


if __name__ == "__main__":
    main()
